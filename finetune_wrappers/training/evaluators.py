"""What is measured of a model while it trains and after: named metrics on fixed test sets."""

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from finetune_wrappers.models.model import Model, answer_logits
from finetune_wrappers.rules import SIZE, Checked, ruled
from finetune_wrappers.tasks.task import TARGETS, Task
from finetune_wrappers.types import Batch, Params

# Test sets are the same for every lane, stage and figure.
TEST_SEED = 20231121


class Metric(NamedTuple):
  """What one number of an evaluator is called in rows.

  Attributes:
    name: the row's `metric`.
    fields: further fields of the row by name, such as ("c_te", 0).
  """

  name: str
  fields: tuple[tuple[str, Any], ...] = ()


class Evaluator(Protocol):
  """A frozen, hashable value; `describe` puts it into a stage's key."""

  def metrics(self, task: Any) -> tuple[Metric, ...]:
    """Its M metrics on that task, in the order of `measure`."""
    ...

  def test_sets(self, task: Any) -> Any:
    """Strings and labels, a pytree; drawn once for all models."""
    ...

  def measure(self, model: Model, params: Params, task: Any, tests: Any) -> Any:
    """The metrics of one model, float32 [M]; jittable."""
    ...


@dataclasses.dataclass(frozen=True)
class Accuracies(Checked):
  """Acc. O_PT and Acc. O_FT at C_Te = 0 and, where the task has a correlation, at C_Te = 1.

  Each operand is asked for by its own prompt, if there are any.

  Attributes:
    eval_size: strings of each test set.
  """

  eval_size: int = ruled(SIZE)

  def metrics(self, task: Task) -> tuple[Metric, ...]:
    """Both at C_Te = 0, then both at C_Te = 1 if the task has a correlation."""
    return tuple(Metric(name, (("c_te", c_te),)) for c_te in _shares(task) for name in ("acc_pt", "acc_ft"))

  def test_sets(self, task: Task) -> dict[int, Batch]:
    """The fixed test sets by C_Te, each of `eval_size` strings."""
    return _test_sets(task, self.eval_size)

  def measure(self, model: Model, params: Params, task: Task, tests: dict[int, Batch]) -> Any:
    """See Evaluator."""

    def predicted(tokens):
      return task.output.predicted(answer_logits(model, params, task, tokens))

    found = []
    for batch in tests.values():
      if task.prompted:
        questions = [task.question(batch, TARGETS.index(operand)) for operand in ("pt", "ft")]
        answers = predicted(jnp.concatenate([tokens for tokens, _ in questions]))
        answers_pt, answers_ft = jnp.split(answers, 2)
      else:
        answers_pt = answers_ft = predicted(batch.tokens)
      found += [(answers_pt == batch.labels_pt).mean(), (answers_ft == batch.labels_ft).mean()]
    return jnp.stack(found)


@functools.partial(jax.jit, static_argnames=("task", "size"))
def _test_sets(task: Task, size: int) -> dict[int, Batch]:
  key = jax.random.key(TEST_SEED)
  return {c_te: task.sample_test(jax.random.fold_in(key, c_te), size, c_te) for c_te in _shares(task)}


def _shares(task: Task) -> tuple[int, ...]:
  return (0, 1) if task.correlated else (0,)
