"""Tasks of one's own functions."""

import jax
import numpy as np
import pytest
from scipy import stats
from test_programs import COUNTS, DRAWS, drawn, key_of, numbers, positions_and_counts

from finetune_wrappers.tasks.functions import FunctionTask
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
  ],
)
def test_functions_that_make_no_task_are_refused_in_one_line(changed, message):
  fields = {"name": "numbers", "length": 6, "num_labels": 13, "answer_position": 5, **changed}
  with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
    FunctionTask(positions_and_counts, lambda tokens: (tokens.sum(axis=1), tokens.max(axis=1)), **fields)
  plain = FunctionTask(positions_and_counts, lambda tokens: (tokens[:, 1], tokens[:, 2]),
                       name="plain", length=6, num_labels=3, answer_position=5)  # fmt: skip
  with pytest.raises(InputError, match=r"\Ac_tr: [^\n]+\Z"):
    plain.sample(jax.random.key(0), 4, 0.5)
