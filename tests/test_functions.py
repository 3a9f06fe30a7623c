"""Tasks of one's own functions."""

import jax
import numpy as np
import pytest
from scipy import stats
from test_programs import COUNTS, DRAWS, drawn, key_of, numbers, positions_and_counts

from finetune_wrappers.tasks.functions import FunctionTask
from finetune_wrappers.tasks.task import Numerical
from finetune_wrappers.training.objectives import Answers, MixedAnswers, Text
from finetune_wrappers.types import InputError


def test_a_task_of_functions_is_what_they_say():
  batch = drawn(numbers, c=0.25)
  tokens = np.asarray(batch.tokens)
  assert tokens.shape == (DRAWS, 6) and all(leaf.dtype == np.int32 for leaf in batch)
  assert stats.binomtest(int((tokens[:, 0] == 2).sum()), DRAWS, 0.25).pvalue > 1e-3
  assert np.array_equal(tokens.sum(1), batch.labels_pt) and np.array_equal(tokens.max(1), batch.labels_ft)
  assert (np.asarray(drawn(numbers, c=1, test=True, size=50).tokens)[:, 0] == 2).all()
  assert numbers.correlated and not numbers.prompted and key_of(numbers) != key_of(COUNTS)


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"length": 7}, "strings: "),
    ({"num_labels": 8}, "answers: "),
    ({"answer_position": (4, 5)}, "answers: "),
    ({"answer_position": 6}, "answer_position: 6 .*0 to 5"),
    ({"name": ""}, "name: "),
    ({"output": Numerical((0.0, 1.0))}, r"output.values: \(0.0, 1.0\) .*one for each of 13 labels"),
    ({"strings": lambda *args: positions_and_counts(*args) / 2}, "strings: 'float32' .*whole numbers"),
    ({"answers": lambda tokens: (tokens.mean(axis=1), tokens[:, 0])}, "answers: 'float32' .*whole numbers"),
    ({"answers": lambda tokens: (tokens[:, 0], tokens.mean(axis=1))}, "answers: 'float32' .*whole numbers"),
  ],
)
def test_functions_that_make_no_task_are_refused_in_one_line(changed, message):
  fields = {"name": "numbers", "length": 6, "num_labels": 13, "answer_position": 5, **changed}
  with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
    FunctionTask(
      **{"strings": positions_and_counts, "answers": lambda tokens: (tokens.sum(axis=1), tokens.max(axis=1)), **fields}
    )
  plain = FunctionTask(positions_and_counts, lambda tokens: (tokens[:, 1], tokens[:, 2]),
                       name="plain", length=6, num_labels=3, answer_position=5)  # fmt: skip
  with pytest.raises(InputError, match=r"\Ac_tr: [^\n]+\Z"):
    plain.sample(jax.random.key(0), 4, 0.5)


@pytest.mark.parametrize(
  ("values", "said"),
  [
    ((1.0, 0.0), "ascending"),
    ((0.0, 0.0), "twice"),
    ((1.0, 1.0 + 1e-9), "ascending"),  # one number in float32
    ((0.0, float("nan")), "a number"),
    ([0.0, 1.0], "a tuple"),
  ],
)
def test_values_that_are_no_labels_are_refused(values, said):
  with pytest.raises(InputError, match=rf"\Avalues: [^\n]*{said}[^\n]*\Z"):
    Numerical(values)


def test_answers_that_are_true_or_false_are_the_labels_one_and_zero():
  task = FunctionTask(positions_and_counts, lambda tokens: (tokens[:, 1] == 0, tokens[:, 1] != 0),
                      name="yes_or_no", length=6, num_labels=2, answer_position=5)  # fmt: skip
  batch = drawn(task, c=0, size=50)
  assert np.array_equal(batch.labels_pt, np.asarray(batch.tokens)[:, 1] == 0)
  assert np.array_equal(batch.labels_ft, 1 - batch.labels_pt)


AS_NUMBERS = FunctionTask(positions_and_counts, lambda tokens: (tokens[:, 1], tokens[:, 2]), name="as_numbers",
                          length=6, num_labels=3, answer_position=5, output=Numerical((0.0, 1.0, 2.0)))  # fmt: skip


@pytest.mark.parametrize(
  ("objective", "message"),
  [
    (Answers(c_tr=0.0, logit_scale=2.0), "logit_scale: 2.0 .*use 1,"),
    (Answers(c_tr=0.0, positions="letters"), "positions: 'letters' .*use answer,"),
    (MixedAnswers(c_tr=0.0, prior=(1.0,), mixed=True), "mixed: as_numbers has no pretraining text; use "),
    (Text(prior=(1.0,)), "objective: as_numbers has no pretraining text; use "),
  ],
)
def test_an_objective_asks_for_what_the_task_lacks_in_one_line(objective, message):
  with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
    objective.check(AS_NUMBERS)
  MixedAnswers(c_tr=0.0, prior=(1.0,)).check(AS_NUMBERS)
  Answers(c_tr=0.0, logit_scale=2.0).check(numbers)
