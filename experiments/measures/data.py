"""Label distributions and guess baselines, to stand beside every accuracy."""

from typing import Any

import jax
import numpy as np

from experiments.measures import Measure, Measured
from experiments.models import Models
from finetune_wrappers.reporting.rows import Row, make_row
from finetune_wrappers.statistics import guess_baseline
from finetune_wrappers.training.evaluators import TEST_SEED, Accuracies
from finetune_wrappers.training.stages import Stage, root_of

_SAMPLES = 10_000


def stages(plan) -> list[Stage]:
  """One root stage, which names the labels."""
  return [root_of(plan.bases()[0])]


def measure(models: Models) -> Measured:
  """Label distributions of the test sets and of training at every C_Tr; the guess baseline of each test set."""
  plan = models.plan
  names = models.load(stages(plan)[0]).labels
  out = Measured(rows=rows_of_tests(plan, names, plan.config.training.eval_size))
  sample = jax.jit(plan.task.sample, static_argnums=1)
  ends = (0.0, 1.0) if plan.task.correlated else (0.0,)
  for c_tr in sorted({*ends, *plan.config.finetune.c_trs}):
    batch = sample(jax.random.key(TEST_SEED + 1), _SAMPLES, c_tr)
    out.rows += _shares(plan, batch.labels_pt, names, operand="pt", c_tr=c_tr)
    out.rows += _shares(plan, batch.labels_ft, names, operand="ft", c_tr=c_tr)
  return out


def rows_of_tests(plan, names: list[str], size: int, *, kind: str = "data") -> list[Row]:
  """Label distributions and guess baselines of the test sets of one size; each size has its own strings.

  Args:
    plan: names the experiment and the task.
    names: symbol of each label.
    size: strings of each test set.
    kind: the rows' `stage`: that of the accuracies they stand beside, or `data` for training's.
  """
  rows = []
  for c_te, batch in Accuracies(size).test_sets(plan.task).items():
    for operand, labels in (("pt", batch.labels_pt), ("ft", batch.labels_ft)):
      fields = {"kind": kind, "operand": operand, "c_te": c_te}
      rows.append(data_row(plan, "guess_baseline", guess_baseline(labels), **fields))
      rows += _shares(plan, labels, names, **fields)
  return rows


def data_row(plan, metric: str, value: float, *, kind: str = "data", **fields: Any) -> Row:
  """A row about strings; it does not depend on seed or step."""
  common = {"experiment": plan.config.name, "setting": plan.config.setting, "task": plan.task_name, "stage": kind}
  return make_row(**common, metric=metric, value=value, step=0, seed=0, **fields)


def _shares(plan, labels, names: list[str], **fields) -> list[Row]:
  counts = np.bincount(np.ravel(labels), minlength=len(names))  # of every answer position
  return [
    data_row(plan, "label_share", count / counts.sum(), label=name, **fields)
    for name, count in zip(names, counts.tolist(), strict=True)
    if count
  ]


MEASURE = Measure(stages, measure, needs=("finetune.c_trs",))
