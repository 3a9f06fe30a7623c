"""The bag of words: which tokens are there decides, not their order; the fit is the penalised optimum."""

import numpy as np
import pytest
import scipy.special

from finetune_wrappers.analysis.bag_of_words import BagOfWords
from finetune_wrappers.types import InputError

VOCAB = 12


def stories(seed, number=400, longest=9):
  generator = np.random.default_rng(seed)
  return generator.integers(VOCAB, size=(number, longest)), generator.integers(3, longest + 1, number)


def test_one_token_that_tells_is_found():
  tokens, lengths = stories(0)
  labels = np.array([5 in row[:n] for row, n in zip(tokens, lengths, strict=True)])
  bag = BagOfWords.fit(tokens, lengths, labels, vocab_size=VOCAB)
  fresh, ends = stories(1)
  expected = np.array([5 in row[:n] for row, n in zip(fresh, ends, strict=True)])
  assert (bag.says(fresh, ends) == expected).mean() > 0.99
  assert bag.weights.argmax() == 5


def test_order_and_what_follows_the_end_do_not_count():
  tokens, lengths = stories(0)
  labels = tokens[:, 0] > tokens[:, 1]
  bag = BagOfWords.fit(tokens, lengths, labels, vocab_size=VOCAB)
  turned, cut = tokens.copy(), tokens.copy()
  for row, other, n in zip(turned, cut, lengths, strict=True):
    row[:n], other[n:] = row[:n][::-1].copy(), 0
  np.testing.assert_array_equal(bag.says(turned, lengths), bag.says(tokens, lengths))
  np.testing.assert_array_equal(bag.says(cut, lengths), bag.says(tokens, lengths))


def test_no_other_weights_have_a_lower_penalised_loss():
  tokens, lengths = stories(0)
  labels = tokens[:, 0] > 6
  bag = BagOfWords.fit(tokens, lengths, labels, vocab_size=VOCAB)

  def loss(weights, bias):
    total = 0.0
    for row, n, label in zip(tokens, lengths, labels, strict=True):
      score = sum(weights[token] for token in set(row[:n].tolist())) + bias
      total -= np.log(scipy.special.expit(score if label else -score))
    return total / len(labels) + 1e-4 * sum(weights**2)

  least, generator = loss(bag.weights, bag.bias), np.random.default_rng(2)
  for scale in (1e-3, 1e-2, 1e-1):
    moved = [
      loss(bag.weights + scale * d[:-1], bag.bias + scale * d[-1]) for d in generator.normal(size=(5, VOCAB + 1))
    ]
    assert min(moved) > least - 1e-9


def test_labels_of_one_kind_are_refused():
  tokens, lengths = stories(0)
  with pytest.raises(InputError, match=r"^labels: .*some of both kinds"):
    BagOfWords.fit(tokens, lengths, np.ones(len(tokens), bool), vocab_size=VOCAB)
