"""Acc. O_PT by family token (App. E.2, Fig. 24): does another token for the same question still reach it?"""

import functools

import jax.numpy as jnp

from experiments.measures import Measured, row_of
from experiments.models import Models
from finetune_wrappers.training.lanes import over_models
from finetune_wrappers.training.stages import Stage
from finetune_wrappers.types import InputError


def stages(plan) -> list[Stage]:
  """Pretrained and fine-tuned models.

  Raises:
    InputError: for a task other than Counting, or pretraining without the further tokens, before anything is trained.
  """
  if not plan.config.text.jailbreaks:
    raise InputError(
      "text.jailbreaks: False is not allowed; use True, so that pretraining has the further family tokens"
    )
  if plan.task_name != "counting":
    raise InputError(f"tasks: {plan.task_name!r} has no further family tokens; use counting")
  return [*plan.bases(), *plan.finetunes()]


def measure(models: Models) -> Measured:
  """Rows of stage `jailbreak`: Acc. O_PT by `family` and C_Te; `model` says which kind of stage was asked."""
  plan = models.plan
  task, families = plan.task, plan.task.families
  tests = plan.evaluator.test_sets(task)
  out, program = Measured(), None
  for stage in stages(plan):
    trained = models.load(stage)
    program = program or over_models(
      trained.model, functools.partial(_accuracies, trained.model, task, families, tests), 1
    )
    (found,) = program([trained.params])
    for (c_te, family), value in zip(_cells(tests, families), found.tolist(), strict=True):
      fields = {"kind": "jailbreak", "model": stage.kind, "family": family, "c_te": c_te}
      out.rows.append(row_of(plan, stage, "acc_pt", None if trained.diverged else value, **fields))
  return out


def _cells(tests, families) -> list[tuple[int, str]]:
  return [(c_te, family) for c_te in tests for family in families]


def _accuracies(model, task, families, tests, params):
  """float32, in the order of `_cells`."""

  def accuracy(c_te: int, family: str):
    batch = tests[c_te]
    tokens = task.asking(batch.tokens, task.text.first_operand, family)
    answers = task.output.predicted(model.answer(params, tokens, task.answer_position))
    return (answers == batch.labels_pt).mean()

  return jnp.stack([accuracy(*cell) for cell in _cells(tests, families)])
