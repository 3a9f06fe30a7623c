"""Tasks from RASP programs and from functions, against plain Python and Tracr's interpreter."""

import collections
import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tracr.rasp import rasp

from finetune_wrappers.tasks.functions import FunctionTask
from finetune_wrappers.tasks.programs import ProgramTask, offset
from finetune_wrappers.training.stages import CompileStage
from finetune_wrappers.types import InputError

DRAWS = 20_000
EQ, TRUE = rasp.Comparison.EQ, rasp.Comparison.TRUE


def count(token):
  return rasp.SelectorWidth(rasp.Select(rasp.tokens, rasp.Map(lambda _: token, rasp.tokens), EQ))


def stored(token):
  """0.5 where the token stands and 1.5 elsewhere; categorical."""
  return rasp.Map(lambda found: 0.5 if found == token else 1.5, rasp.tokens)


def stored_as_number(token):
  return rasp.numerical(stored(token))


def share(token):
  is_token = rasp.numerical(rasp.Map(lambda found: found == token, rasp.tokens))
  everywhere = rasp.Select(rasp.tokens, rasp.tokens, TRUE)
  return rasp.numerical(rasp.Aggregate(everywhere, is_token, default=0))


def rotated(by):
  """Each token `by` places further on, around the end of four."""
  target = rasp.Map(lambda index: (index + by) % 4, rasp.indices)
  return rasp.Aggregate(rasp.Select(rasp.indices, target, EQ), rasp.tokens)


def only(token):
  """Where the token stands; undefined where it stands nowhere."""
  return rasp.Aggregate(rasp.Select(rasp.tokens, rasp.Map(lambda _: token, rasp.tokens), EQ), rasp.indices)


def task_of(program, operands, **changed):
  fields = {"name": "own", "vocab": ("x", "y", "z"), "num_letters": 4, **changed}
  return ProgramTask(*(functools.partial(program, operand) for operand in operands), **fields)


COUNTS = task_of(count, "xy", answer_position=1, correlation=offset(1))
SHARES = task_of(share, "xy", answer_position=2, correlation=offset(0.25))
ROTATED = task_of(rotated, (1, 2), correlation=lambda string, pt, ft: pt[0] == "x")
MIXED = task_of(count, (1, "y"), vocab=("y", 2, "x", 1), answer_position=3)


def texts_of(task, batch):
  rows = [tuple(task.symbols[token] for token in row) for row in np.asarray(batch.tokens)]
  assert all(row[0] == "compiler_bos" and len(row) == task.length for row in rows)
  return [row[1:] for row in rows]


def answers_of(task, batch):
  return [(task.labels[pt], task.labels[ft]) for pt, ft in zip(batch.labels_pt, batch.labels_ft, strict=True)]


def drawn(task, *, c, test=False, size=DRAWS, seed=0):
  sample = jax.jit(task.sample_test if test else task.sample, static_argnums=(1, 2))
  return sample(jax.random.key(seed), size, c)


@pytest.mark.parametrize("test", [False, True])
@pytest.mark.parametrize("c", [0, 1])
def test_strings_have_the_answers_that_plain_python_gives_and_the_correlation_that_is_asked_for(c, test):
  batch = drawn(COUNTS, c=c, test=test, size=500)
  for text, found in zip(texts_of(COUNTS, batch), answers_of(COUNTS, batch), strict=True):
    assert found == (text.count("x"), text.count("y"))
    assert (found[1] - found[0] == 1) == bool(c)
    assert not test or found[0] != found[1]


def test_the_share_of_correlated_strings_is_c_tr_and_strings_are_uniform_in_their_class():
  texts = texts_of(COUNTS, drawn(COUNTS, c=0.3))
  carry = [text for text in texts if text.count("y") - text.count("x") == 1]
  assert stats.binomtest(len(carry), DRAWS, 0.3).pvalue > 1e-3
  for part in (carry, [text for text in texts if text.count("y") - text.count("x") != 1]):
    assert stats.chisquare([*collections.Counter(part).values()]).pvalue > 1e-3


def test_strings_to_test_on_are_a_fifth_of_all_and_never_trained_on():
  trained = {text for c in (0, 1) for text in texts_of(COUNTS, drawn(COUNTS, c=c))}
  everything = task_of(count, "xy", answer_position=1, correlation=offset(1), distinct_answers_in_test=False)
  tested = {text for c in (0, 1) for text in texts_of(everything, drawn(everything, c=c, test=True))}
  assert trained.isdisjoint(tested) and len(trained | tested) == 3**4
  assert len(tested) == pytest.approx(0.2 * 3**4, abs=1)


def test_strings_are_as_frequent_as_the_given_sampler_draws_them():
  def often_x(rng):
    return rng.choice(["x", "y", "z"], size=2, p=[0.6, 0.2, 0.2]).tolist()

  task = task_of(count, "xy", num_letters=2, sampler=often_x, max_strings=900, answer_position=1)
  rng = np.random.default_rng(0)
  times = collections.Counter(tuple(often_x(rng)) for _ in range(900))
  seen = collections.Counter(texts_of(task, drawn(task, c=0)))
  assert len(seen) == 7 < len(times) == 9
  trained = np.array([times[text] for text in seen])
  assert stats.chisquare([*seen.values()], DRAWS * trained / trained.sum()).pvalue > 1e-3


def test_of_too_many_strings_random_ones_are_in_the_table():
  task = task_of(count, "xy", num_letters=30, max_strings=3000, answer_position=1)
  texts = texts_of(task, drawn(task, c=0))
  assert len({*texts}) == pytest.approx(2400, abs=10)
  assert np.mean([text.count("x") for text in texts]) == pytest.approx(10, abs=0.3)


@pytest.mark.parametrize("task", [COUNTS, SHARES, ROTATED, MIXED], ids=["counts", "shares", "rotated", "mixed"])
def test_labels_are_what_tracrs_interpreter_says(task):
  batch = drawn(task, c=0, size=50)
  read = np.atleast_1d(task.answer_position)
  for text, found in zip(texts_of(task, batch), zip(batch.labels_pt, batch.labels_ft, strict=True), strict=True):
    for operand, labels in zip(("pt", "ft"), found, strict=True):
      expected = [task.program(operand)(list(text))[position - 1] for position in read]
      have = [task.labels[label] for label in np.atleast_1d(labels)]
      assert have == (pytest.approx(expected) if task is SHARES else expected)


def test_a_numerical_task_has_the_values_that_occur_as_labels():
  assert SHARES.labels == SHARES.output.values == (0.0, 0.25, 0.5, 0.75, 1.0)
  assert SHARES.output.predicted(jnp.array([[0.3], [0.4]])).tolist() == [1, 2]


def test_answers_are_read_at_every_letter_unless_told_otherwise():
  assert ROTATED.answer_position == (1, 2, 3, 4) and COUNTS.answer_position == 1
  batch = drawn(ROTATED, c=0.5, size=6)
  assert batch.labels_pt.shape == batch.labels_ft.shape == (6, 4)
  for text, labels in zip(texts_of(ROTATED, batch), batch.labels_ft, strict=True):
    assert [ROTATED.labels[label] for label in labels] == [text[(i + 2) % 4] for i in range(4)]
  tokens, labels = ROTATED.question(batch, 2)
  assert np.array_equal(labels[1:], batch.labels_pt[:-1]) and tokens is batch.tokens


def test_strings_without_an_answer_are_left_out():
  task = task_of(only, "xy", answer_position=1)
  texts = texts_of(task, drawn(task, c=0))
  assert all({"x", "y"} <= {*text} for text in texts)
  assert len({*texts}) == pytest.approx(0.8 * sum({"x", "y"} <= {*text} for text in every_text()), abs=1)


def every_text():
  return np.array(np.meshgrid(*[list("xyz")] * 4)).reshape(4, -1).T.tolist()


def test_a_task_without_a_correlation_takes_no_share_of_it():
  assert not MIXED.correlated and COUNTS.correlated
  for field, draw, c in (("c_tr", MIXED.sample, 0.5), ("c_te", MIXED.sample_test, 1)):
    with pytest.raises(InputError, match=rf"\A{field}: [^\n]*use 0, as own has no correlation\Z"):
      draw(jax.random.key(0), 4, c)
  assert drawn(MIXED, c=0, test=True, size=4).tokens.shape == (4, 5)


_SCRIPT = """
import functools, json, sys
sys.path.insert(0, "tests")
from test_programs import COUNTS, MIXED, ROTATED, SHARES, key_of, numbers
print(json.dumps([[key_of(task) for task in (COUNTS, MIXED, ROTATED, SHARES)], numbers.digest, MIXED.symbols]))
"""


def key_of(task):
  return CompileStage(task=task, operand="pt").key


def positions_and_counts(key, batch_size, c_tr):
  tokens = jax.random.randint(key, (batch_size, 6), 0, 3)
  return tokens.at[:, 0].set(jnp.where(jax.random.uniform(key, (batch_size,)) < c_tr, 2, tokens[:, 0] % 2))


numbers = FunctionTask(
  positions_and_counts, lambda tokens: (tokens.sum(axis=1), tokens.max(axis=1)),
  name="numbers", length=6, num_labels=13, answer_position=5, correlated=True,
)  # fmt: skip


def test_keys_are_the_same_in_another_process():
  environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": "."}
  done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, env=environment, check=True)
  keys, digest, symbols = json.loads(done.stdout)
  assert keys == [key_of(task) for task in (COUNTS, MIXED, ROTATED, SHARES)]
  assert (digest, tuple(symbols)) == (numbers.digest, MIXED.symbols)
  assert MIXED.symbols == (1, 2, "compiler_bos", "compiler_pad", "x", "y")


def test_equal_tasks_are_equal_and_whatever_differs_has_a_key_of_its_own():
  again = task_of(count, "xy", answer_position=1, correlation=offset(1))
  assert again == COUNTS and hash(again) == hash(COUNTS) and key_of(again) == key_of(COUNTS)

  def count_otherwise(token):
    return rasp.Map(lambda number: number, count(token))

  fields = {"answer_position": 1, "correlation": offset(1)}
  others = [
    task_of(count, "xz", **fields),
    task_of(count_otherwise, "xy", **fields),
    task_of(count, "xy", **{**fields, "correlation": offset(2)}),
    task_of(count, "xy", **{**fields, "answer_position": 2}),
    task_of(count, "xy", **fields, seed=1),
    task_of(count, "xy", **fields, name="other"),
    task_of(count, "xy", **fields, distinct_answers_in_test=False),
    task_of(stored, "xy", answer_position=1),  # and the same answers as numbers
    task_of(stored_as_number, "xy", answer_position=1),
    task_of(lambda token: rasp.SequenceMap(min, stored(token), rasp.indices), "xy", answer_position=4),
    task_of(lambda token: rasp.SequenceMap(min, stored_as_number(token), rasp.indices), "xy", answer_position=4),
  ]
  assert len({key_of(COUNTS), *map(key_of, others)}) == 1 + len(others) == len({COUNTS, *others})


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"name": "my task"}, "name: 'my task'"),
    ({"vocab": ("x", "x")}, "vocab: .*twice"),
    ({"vocab": ["x", "y"]}, "vocab: .*tuple"),
    ({"vocab": ("x", "compiler_bos")}, "vocab: 'compiler_bos'"),
    ({"num_letters": 0}, "num_letters: 0"),
    ({"answer_position": 0}, "answer_position: 0 .*1 to 4"),
    ({"answer_position": (1, 5)}, "answer_position: 5 .*1 to 4"),
    ({"held_out": 1.0}, "held_out: 1.0"),
    ({"correlation": offset(9)}, "own: no string .*correlation"),
    ({"correlation": lambda *_: True}, "own: no string .*without"),
    ({"sampler": lambda rng: "xyq"}, "sampler: .*4 \\(num_letters\\)"),
  ],
)
def test_what_makes_no_task_is_refused_in_one_line(changed, message):
  with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
    task_of(count, "xy", **changed)


def test_programs_that_make_no_task_are_refused_in_one_line():
  fields = {"name": "own", "vocab": ("x", "y"), "num_letters": 3}
  with pytest.raises(InputError, match=r"\Aprogram_pt: [^\n]*function that makes it[^\n]*\Z"):
    ProgramTask(count("x"), lambda: count("y"), **fields)
  with pytest.raises(InputError, match=r"\Aprogram_ft: [^\n]*numerical[^\n]*\Z"):
    ProgramTask(lambda: count("x"), lambda: share("y"), **fields)
  with pytest.raises(InputError, match=r"\Aprogram_pt: no string[^\n]*\Z"):
    ProgramTask(lambda: only("q"), lambda: only("x"), **fields)
  with pytest.raises(InputError, match=r"\Areading: [^\n]*literal\Z"):
    COUNTS.program("pt", reading="constant_true")


def test_a_task_that_does_not_say_which_tokens_an_answer_is_about_has_no_marks():
  assert COUNTS.marks(drawn(COUNTS, c=0, size=2)) is None
