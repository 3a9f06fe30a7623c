"""The samplers of Counter and Max-identifier against plain Python and exhaustive enumeration."""

import collections
import itertools
import string

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from finetune_wrappers.tasks.tracr_tasks import CounterTask, MaxIdentifierTask, make_task
from finetune_wrappers.types import InputError

LETTERS = string.ascii_lowercase
TINY = {
  "counter": CounterTask(num_letters=4, vocab_size=4, num_pads=1, q=1),
  "neighbours": MaxIdentifierTask(num_letters=4, vocab_size=6, num_pads=1, rank_pt=2, rank_ft=3, q=2),
  "one_between": MaxIdentifierTask(num_letters=4, vocab_size=6, num_pads=1, rank_pt=1, rank_ft=3, q=3),
}
DRAWS = 20_000
few = settings(max_examples=15, deadline=None)
anything = {"c_tr": st.sampled_from([0.0, 0.3, 1.0]) | st.floats(0, 1), "seed": st.integers(0, 2**32 - 1)}


def answers(task, text):
  """(r(x, O_PT), r(x, O_FT)) as numbers of the answer's class."""
  if task.name == "counter":
    return text.count("a"), text.count("b")
  ordered = sorted(text)
  return LETTERS.index(ordered[task.rank_pt - 1]), LETTERS.index(ordered[task.rank_ft - 1])


def carries(task, text):
  answer_pt, answer_ft = answers(task, text)
  return answer_ft - answer_pt == task.q


def strings_of(task):
  alphabet = LETTERS[: task.vocab_size]
  if task.name == "counter":
    return ["".join(letters) for letters in itertools.product(alphabet, repeat=task.num_letters)]
  return ["".join(letters) for letters in itertools.permutations(alphabet, task.num_letters)]


def read(task, batch):
  """Strings of a batch, after everything that every string must satisfy has been checked."""
  assert all(leaf.dtype == np.int32 for leaf in batch)
  tokens = np.asarray(batch.tokens)
  ids = sorted([*LETTERS[: task.vocab_size], "compiler_bos", "compiler_pad"])
  rows = [[ids[token] for token in row] for row in tokens.tolist()]
  texts = ["".join(row[1 : 1 + task.num_letters]) for row in rows]
  pads = ["compiler_pad"] * task.num_pads
  assert tokens.shape[1] == task.length and tokens.min() >= 0
  assert all(row == ["compiler_bos", *text, *pads] for row, text in zip(rows, texts, strict=True))
  assert all(len(text) == task.num_letters and set(text) <= set(LETTERS[: task.vocab_size]) for text in texts)
  if task.name == "max_identifier":
    assert all(len(set(text)) == task.num_letters for text in texts)
  given_answers = zip(batch.labels_pt.tolist(), batch.labels_ft.tolist(), strict=True)
  assert list(given_answers) == [answers(task, text) for text in texts]
  return texts


def check_sample(task, c_tr, seed):
  texts = read(task, task.sample(jax.random.key(seed), 16, c_tr))
  assert len(texts) == 16
  if c_tr in (0, 1):
    assert {carries(task, text) for text in texts} == {bool(c_tr)}


@st.composite
def counters(draw):
  # Only the number of letters costs a compilation.
  num_letters, vocab_size = draw(st.sampled_from([2, 5])), draw(st.integers(2, 26))
  differences = [
    q for q in range(-num_letters, num_letters + 1) if q and (vocab_size > 2 or (num_letters - q) % 2 == 0)
  ]
  return CounterTask(
    num_letters, vocab_size, draw(st.integers(0, 3)), draw(st.sampled_from(differences)), draw(st.booleans())
  )


def gaps_of(num_letters, vocab_size, rank_pt, rank_ft):
  """Distances between the two answers, over every set of letters."""
  sets = itertools.combinations(range(vocab_size), num_letters)
  return sorted({letters[rank_ft - 1] - letters[rank_pt - 1] for letters in sets})


@st.composite
def max_identifiers(draw):
  num_letters, vocab_size = draw(st.sampled_from([(2, 3), (4, 9)]))
  rank_pt, rank_ft = draw(st.sampled_from(list(itertools.combinations(range(1, num_letters + 1), 2))))
  q = draw(st.sampled_from(gaps_of(num_letters, vocab_size, rank_pt, rank_ft)))
  return MaxIdentifierTask(num_letters, vocab_size, draw(st.integers(0, 3)), q, rank_pt, rank_ft)


@few
@given(task=counters(), **anything)
@example(task=CounterTask(), c_tr=1.0, seed=0)
def test_counter_samples_what_it_says(task, c_tr, seed):
  check_sample(task, c_tr, seed)


@few
@given(task=max_identifiers(), **anything)
@example(task=MaxIdentifierTask(), c_tr=1.0, seed=0)
def test_max_identifier_samples_what_it_says(task, c_tr, seed):
  check_sample(task, c_tr, seed)


@few
@given(task=counters(), seed=anything["seed"])
@example(task=CounterTask(), seed=0)
def test_counter_test_sets_are_pure(task, seed):
  with_correlation = read(task, task.sample_test(jax.random.key(seed), 16, 1))
  without = read(task, task.sample_test(jax.random.key(seed), 16, 0))
  assert all(carries(task, text) for text in with_correlation)
  assert not any(carries(task, text) for text in without)
  if task.distinct_answers_in_test:
    assert all(text.count("a") != text.count("b") for text in without)


@few
@given(task=max_identifiers(), seed=anything["seed"])
def test_max_identifier_test_sets_are_pure(task, seed):
  for c_te in (0, 1):
    texts = read(task, task.sample_test(jax.random.key(seed), 16, c_te))
    assert {carries(task, text) for text in texts} == {bool(c_te)}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("c_tr", [0.2, 0.5])
def test_share_of_correlated_strings_is_c_tr(name, c_tr):
  texts = read(TINY[name], TINY[name].sample(jax.random.key(1), DRAWS, c_tr))
  number = sum(carries(TINY[name], text) for text in texts)
  assert stats.binomtest(number, DRAWS, c_tr).pvalue > 1e-3


def is_uniform(texts, expected):
  """Whether these are draws, each as likely as another, from what is expected and nothing else."""
  seen = collections.Counter(texts)
  return set(seen) == set(expected) and stats.chisquare([seen[text] for text in expected]).pvalue > 1e-3


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("correlated", [False, True])
def test_strings_are_uniform_within_their_class(name, correlated):
  task = TINY[name]
  expected = [text for text in strings_of(task) if carries(task, text) == correlated]
  texts = read(task, task.sample(jax.random.key(2), DRAWS, float(correlated)))
  assert is_uniform(texts, expected)


@pytest.mark.parametrize("distinct", [False, True])
def test_counter_test_set_is_uniform_and_leaves_out_equal_answers_when_asked_to(distinct):
  task = CounterTask(num_letters=4, vocab_size=3, num_pads=1, q=1, distinct_answers_in_test=distinct)
  expected = [text for text in strings_of(task) if not carries(task, text)]
  if distinct:
    expected = [text for text in expected if text.count("a") != text.count("b")]
  assert is_uniform(read(task, task.sample_test(jax.random.key(3), DRAWS, 0)), expected)


@pytest.mark.parametrize("name", TINY)
def test_the_same_key_draws_the_same_strings_under_jit_and_another_key_others(name):
  task, key = TINY[name], jax.random.key(4)
  compiled = jax.jit(task.sample, static_argnums=1)
  first = task.sample(key, 32, 0.5)
  for leaf, other in zip(first, compiled(key, 32, 0.5), strict=True):
    np.testing.assert_array_equal(leaf, other)
  assert not np.array_equal(first.tokens, compiled(jax.random.key(5), 32, 0.5).tokens)


def test_symbols_stand_in_tracrs_order_and_the_sizes_add_up():
  task = CounterTask(num_letters=5, vocab_size=4, num_pads=2)
  assert task.symbols == ("a", "b", "c", "compiler_bos", "compiler_pad", "d")
  assert (task.max_seq_len, task.length, task.num_labels, task.answer_position) == (7, 8, 8, 2)
  assert MaxIdentifierTask().num_labels == 26


@pytest.mark.parametrize("sizes", [(2, 3), (3, 5), (4, 6), (5, 6)])
def test_max_identifier_takes_exactly_the_distances_that_some_string_has(sizes):
  num_letters, vocab_size = sizes
  for rank_pt, rank_ft in itertools.combinations(range(1, num_letters + 1), 2):
    gaps = gaps_of(num_letters, vocab_size, rank_pt, rank_ft)
    for q in range(-1, vocab_size + 1):
      fields = {"num_letters": num_letters, "vocab_size": vocab_size, "q": q, "rank_pt": rank_pt, "rank_ft": rank_ft}
      if q in gaps:
        MaxIdentifierTask(**fields)
      else:
        with pytest.raises(InputError, match=rf"\Aq: [^\n]+ use {gaps[0]} to {gaps[-1]}\Z"):
          MaxIdentifierTask(**fields)


@pytest.mark.parametrize("vocab_size", [2, 3])
@pytest.mark.parametrize("num_letters", [2, 5])
def test_counter_takes_exactly_the_differences_that_some_string_has(vocab_size, num_letters):
  strings = itertools.product(LETTERS[:vocab_size], repeat=num_letters)
  differences = {text.count("b") - text.count("a") for text in strings} - {0}
  for q in range(-num_letters - 1, num_letters + 2):
    if q in differences:
      CounterTask(num_letters=num_letters, vocab_size=vocab_size, q=q)
    else:
      allowed = sorted({abs(difference) for difference in differences})
      steps = f"{allowed[0]} to {allowed[-1]} in steps of {1 if vocab_size > 2 else 2}"
      with pytest.raises(InputError, match=rf"\Aq: [^\n]+ use {steps}[^\n]+\Z"):
        CounterTask(num_letters=num_letters, vocab_size=vocab_size, q=q)


@pytest.mark.parametrize(
  ("name", "changed", "message"),
  [
    ("counter", {"num_letters": 1}, "num_letters: 1 .*from 2 to"),
    ("counter", {"vocab_size": 1}, "vocab_size: 1 .*2 to 26"),
    ("counter", {"vocab_size": 27}, "vocab_size: 27 .*2 to 26"),
    ("counter", {"num_pads": -1}, "num_pads: -1 .*from 0 to"),
    ("counter", {"q": 1.5}, "q: 1.5 .*whole number"),
    ("counter", {"distinct_answers_in_test": 1}, "distinct_answers_in_test: 1 .*True or False"),
    ("max_identifier", {"num_letters": 27}, "num_letters: 27 .*26"),
    ("max_identifier", {"num_letters": 26}, "num_letters: 26 .*25 or fewer"),
    ("max_identifier", {"rank_pt": 7}, "rank_ft: .*1 to 9"),
    ("max_identifier", {"rank_pt": 0}, "rank_pt: 0 .*from 1 to"),
    ("max_identifier", {"rank_ft": 10}, "rank_ft: .*1 to 9"),
    ("max_identifier", {"q": 1}, "q: .*2 to 19"),  # the paper's own, which no string has
    ("sorter", {}, "task: 'sorter' .*counter, max_identifier"),
  ],
)
def test_sizes_and_ranks_that_no_string_has_are_refused_in_one_line(name, changed, message):
  with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
    make_task(name, **changed)


def test_make_task_makes_the_task_of_that_name():
  assert make_task("counter", q=2) == CounterTask(q=2)
  assert make_task("max_identifier", q=3) == MaxIdentifierTask(q=3)
