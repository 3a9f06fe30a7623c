"""The sampler against nltk, whose productions are walked, parsed and summed over here; no table is looked into."""

import collections
import dataclasses
import itertools
import math
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_pcfg_grammar import PAPER, SMALL, Reader, strings

from finetune_wrappers.tasks import pcfg_sampler
from finetune_wrappers.tasks.pcfg_grammar import PAPER_GRAMMAR, Grammar
from finetune_wrappers.tasks.pcfg_sampler import sample_strings, sample_windows
from finetune_wrappers.types import InputError

WINDOW, DRAWS, SMALL_DRAWS = 250, 2048, 10_000


def decoded(grammar, tokens, lengths):
  """Strings as tuples of terminals, after checking types, and that pads stand after them and nowhere else."""
  assert tokens.dtype == lengths.dtype == jnp.int32
  names, pad = grammar.terminals, len(grammar.terminals)
  rows = [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
  assert [len(row) for row in rows] == lengths.tolist()
  padded = np.array([row + [pad] * (tokens.shape[1] - len(row)) for row in rows])
  np.testing.assert_array_equal(tokens, padded)
  return [tuple(names[token] for token in row) for row in rows]


def walk(pcfg, symbol, rng):
  """A random derivation."""
  if isinstance(symbol, str):
    return [symbol]
  productions = pcfg.productions(lhs=symbol)
  chosen = rng.choices(productions, [p.prob() for p in productions])[0]
  return [token for child in chosen.rhs() for token in walk(pcfg, child, rng)]


def length_probabilities(pcfg, symbol):
  """Probability of every length, [longest + 1]."""
  if isinstance(symbol, str):
    return np.array([0.0, 1.0])
  total = np.zeros(1)
  for p in pcfg.productions(lhs=symbol):
    side = np.ones(1) * p.prob()
    for child in p.rhs():
      side = np.convolve(side, length_probabilities(pcfg, child))
    size = max(len(total), len(side))
    total = np.pad(total, (0, size - len(total))) + np.pad(side, (0, size - len(side)))
  return total


def spoiled(text, rng):
  """The text with some neighbouring tokens in another order."""
  place = rng.randrange(len(text) - 30)
  return (*text[:place], *rng.sample(text[place : place + 30], 30), *text[place + 30 :])


def is_drawn_from(seen, expected):
  """Whether nothing else was seen, and everything about as often as expected; rare ones are counted together."""
  draws = sum(seen.values())
  assert set(seen) <= set(expected) and math.fsum(expected.values()) == pytest.approx(1)
  often = [text for text in expected if expected[text] * draws >= 8]
  observed = [seen[text] for text in often]
  wanted = [expected[text] * draws for text in often]
  if (rest := draws - sum(wanted)) > 8:
    observed, wanted = [*observed, draws - sum(observed)], [*wanted, rest]
  return stats.chisquare(observed, np.array(wanted) * (sum(observed) / sum(wanted))).pvalue > 1e-3


def windows(texts, length, short):
  """Probability of every window, over all pairs of a string (or of joined ones) and a start."""
  found = collections.defaultdict(float)
  left = {(): 1.0}
  while left:
    longer = collections.defaultdict(float)
    for (before, p), (text, q) in itertools.product(left.items(), texts.items()):
      longer[before + text] += p * q
    full = longer if short == "pad" else {text: p for text, p in longer.items() if len(text) >= length}
    for text, p in full.items():
      starts = range(max(len(text) - length, 0) + 1)
      for start in starts:
        found[text[start : start + length]] += p / len(starts)
    left = {text: p for text, p in longer.items() if text not in full}
  return found


@pytest.fixture
def cut(request, monkeypatch):
  """A small grammar of one level of tables, or of more: then with its rules in another order, which is another key."""

  def reordered(grammar):
    assert len(pcfg_sampler._levels(grammar)) == 1
    monkeypatch.setattr(pcfg_sampler, "_MAX_BITS", 2)
    other = dataclasses.replace(grammar, rules=grammar.rules[::-1])
    assert len(pcfg_sampler._levels(other)) > 1
    return other

  return {"one": lambda grammar: grammar, "more": reordered}[request.param]


@pytest.fixture(scope="module")
def exact_lengths():
  return length_probabilities(PAPER, PAPER.start())


@pytest.fixture(scope="module")
def paper_strings():
  return decoded(PAPER_GRAMMAR, *sample_strings(PAPER_GRAMMAR, jax.random.key(0), DRAWS))


@pytest.fixture(scope="module", params=["join", "pad"])
def paper_windows(request):
  tokens = sample_windows(PAPER_GRAMMAR, jax.random.key(1), DRAWS, length=WINDOW, short=request.param)
  return request.param, decoded(PAPER_GRAMMAR, *tokens)


@pytest.mark.parametrize(
  ("name", "cut"),
  [("dyadic", "one"), ("other", "one"), ("other", "more")],
  indirect=["cut"],
)
def test_strings_are_drawn_with_their_probabilities(name, cut):
  pcfg, grammar = SMALL[name]
  texts = decoded(grammar, *sample_strings(cut(grammar), jax.random.key(2), SMALL_DRAWS))
  assert is_drawn_from(collections.Counter(texts), strings(pcfg, pcfg.start()))


@pytest.mark.parametrize(
  ("name", "length", "short", "cut"),
  [
    ("dyadic", 4, "join", "more"),
    ("dyadic", 4, "pad", "one"),
    ("other", 6, "join", "one"),
    ("other", 6, "pad", "more"),
    ("no_short", 8, "join", "more"),
    ("no_short", 8, "pad", "more"),
    ("no_short", 8, "join", "one"),
  ],
  indirect=["cut"],
)
def test_windows_are_drawn_as_from_all_pairs_of_string_and_start(name, length, short, cut):
  pcfg, grammar = SMALL[name]
  texts = decoded(grammar, *sample_windows(cut(grammar), jax.random.key(3), SMALL_DRAWS, length=length, short=short))
  assert is_drawn_from(collections.Counter(texts), windows(strings(pcfg, pcfg.start()), length, short))


def test_every_string_of_the_papers_grammar_parses(paper_strings):
  rng = random.Random(0)
  assert all(Reader(PAPER, text).reads() for text in paper_strings[:100])
  assert not any(Reader(PAPER, spoiled(text, rng)).reads() for text in paper_strings[:10])


def test_every_window_of_the_papers_grammar_is_part_of_its_strings(paper_windows):
  short, texts = paper_windows
  rng = random.Random(0)
  joined = 2 if short == "join" else 1
  assert all(Reader(PAPER, text, cut=len(text) == WINDOW).reads(joined) for text in texts[:60])
  assert not any(Reader(PAPER, spoiled(text, rng), cut=True).reads(joined=2) for text in texts[:10])


def test_lengths_of_the_papers_strings_are_distributed_as_they_should_be(paper_strings, exact_lengths):
  mean = exact_lengths @ np.arange(len(exact_lengths))
  sd = math.sqrt(exact_lengths @ (np.arange(len(exact_lengths)) - mean) ** 2)
  assert (round(mean), round(sd)) == (276, 42)
  lengths = [len(text) for text in paper_strings]
  assert abs(np.mean(lengths) - mean) < 4 * sd / math.sqrt(DRAWS)
  assert is_drawn_from(collections.Counter(lengths), dict(enumerate(exact_lengths)))


def test_short_strings_of_the_papers_grammar_are_joined_or_padded(paper_windows, exact_lengths):
  short, texts = paper_windows
  shorter = exact_lengths[:WINDOW].sum()
  assert shorter == pytest.approx(0.24, abs=0.01)
  number = sum(len(text) < WINDOW for text in texts)
  assert number == 0 if short == "join" else stats.binomtest(number, DRAWS, shorter).pvalue > 1e-3


def test_tokens_pairs_and_triples_are_as_frequent_as_in_a_walk(paper_strings):
  rng = random.Random(0)
  walked = [walk(PAPER, PAPER.start(), rng) for _ in range(500)]

  def counts(texts, size):
    grams = [collections.Counter(zip(*(text[i:] for i in range(size)), strict=False)) for text in texts]
    return np.array([[gram[key] for key in itertools.product("abc", repeat=size)] for gram in grams])

  for size in (1, 2, 3):
    ours, theirs = counts(paper_strings, size), counts(walked, size)
    np.testing.assert_array_equal(ours.any(axis=0), theirs.any(axis=0))
    error = np.sqrt(ours.var(axis=0) / len(ours) + theirs.var(axis=0) / len(theirs))
    assert (abs(ours.mean(axis=0) - theirs.mean(axis=0)) <= 4 * error).all()


def test_the_same_key_draws_the_same_under_vmap_and_pmap_and_another_key_others():
  grammar = SMALL["other"][1]
  keys = jax.random.split(jax.random.key(4), 3)

  def draw(key):
    return sample_windows(grammar, key, 16, length=6, short="join")

  one_by_one = [np.stack(leaves) for leaves in zip(*map(draw, keys), strict=True)]
  jax.tree.map(np.testing.assert_array_equal, list(jax.vmap(draw)(keys)), one_by_one)
  jax.tree.map(np.testing.assert_array_equal, list(jax.pmap(draw)(keys[:1])), [leaf[:1] for leaf in one_by_one])
  assert not np.array_equal(one_by_one[0][0], one_by_one[0][1])


@pytest.mark.parametrize("weights", [[1, 1, 1], [0.7, 0.2, 0.1], [1, 1e-12], [1e-9, 3, 1e-9, 5, 1], [*range(1, 40)]])
def test_rows_of_a_table_have_their_probabilities_and_rows_that_fill_it_up_none(weights):
  weights = np.array(weights) / np.sum(weights)
  size = 2 ** math.ceil(math.log2(len(weights)))
  stands, threshold, alias = pcfg_sampler._slots(weights, size)
  drawn = np.zeros(size)
  for row in range(size):
    drawn[row] += threshold[row] / 2**32
    drawn[alias[row]] += 1 - threshold[row] / 2**32
  assert not drawn[len(weights) :].any()
  np.testing.assert_array_equal(stands[: len(weights)], np.arange(len(weights)))
  np.testing.assert_allclose(drawn[: len(weights)] / size, weights, rtol=0, atol=2**-31)


def test_what_is_too_rare_for_the_coin_is_not_drawn():
  grammar = Grammar("s", (("s", ("x",), 1e-12), ("s", ("y",), 1 - 1e-12)))
  assert decoded(grammar, *sample_strings(grammar, jax.random.key(5), 64)) == [("y",)] * 64


def test_a_grammar_of_long_chains_and_many_right_sides():
  doubled = [(f"n{i}", (f"n{i + 1}", f"n{i + 1}"), 1.0) for i in range(9)]
  grammar = Grammar("n0", (*doubled, *(("n9", (f"t{i:03}",), 1 / 300) for i in range(300))))
  tokens, lengths = sample_strings(grammar, jax.random.key(6), 64)
  assert (lengths == 512).all() and (grammar.min_length, grammar.max_length) == (512, 512)
  assert stats.chisquare(np.bincount(np.ravel(tokens), minlength=300)).pvalue > 1e-3


WIDE = Grammar("s", tuple(("s", (f"t{i}",), 1 / 65537) for i in range(65537)))
LONG = Grammar("n0", (*((f"n{i}", (f"n{i + 1}", f"n{i + 1}"), 1.0) for i in range(31)), ("n31", ("x",), 1.0)))


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda key: sample_windows(PAPER_GRAMMAR, key, 2, length=9, short="cut"), "short: 'cut' .*join or pad"),
    (lambda key: sample_windows(PAPER_GRAMMAR, key, 2, length=0, short="join"), "length: 0 .*1 to 432.*"),
    (lambda key: sample_windows(PAPER_GRAMMAR, key, 2, length=433, short="pad"), "length: 433 .*1 to 432.*"),
    (lambda key: sample_strings(WIDE, key, 2), "rules: s have too many or too long right sides; use at most 65536 .+"),
    (lambda key: sample_strings(LONG, key, 2), "rules: strings of 2147483648 tokens are too long; use fewer .*"),
  ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(call, message):
  with pytest.raises(InputError) as refusal:
    call(jax.random.key(0))
  assert re.fullmatch(message, str(refusal.value))  # pytest's match would see the note that JAX adds, too
