"""What the labels look like, and how far guessing gets: beside every accuracy."""

import jax
import numpy as np

from experiments.measures import Measured
from experiments.models import Models
from finetune_wrappers.reporting.rows import make_row
from finetune_wrappers.statistics import guess_baseline
from finetune_wrappers.training import step
from finetune_wrappers.training.stages import Stage

_SAMPLES = 10_000


def stages(plan) -> list[Stage]:
  """The compiled program, which names the classes."""
  return [plan.compiled()]


def measure(models: Models) -> Measured:
  """Label distributions of the test sets and of training at C_Tr = 0 and 1; the guess baseline of each test set."""
  plan = models.plan
  classes = models.load(plan.compiled()).classes
  common = {"experiment": plan.config.name, "setting": "tracr", "task": plan.task_name, "stage": "data"}
  out = Measured()
  tests = step.test_sets(plan.task, plan.config.training.eval_size)
  for c_te, batch in tests.items():
    for operand, labels in (("pt", batch.target_pt), ("ft", batch.target_ft)):
      guess = {"metric": "guess_baseline", "operand": operand, "c_te": c_te, "value": guess_baseline(labels)}
      out.rows.append(make_row(**common, step=0, seed=0, **guess))
      out.rows += _shares(common, labels, classes, operand=operand, c_te=c_te)
  sample = jax.jit(plan.task.sample, static_argnums=1)
  for c_tr in (0.0, 1.0):
    batch = sample(jax.random.key(step.TEST_SEED + 1), _SAMPLES, c_tr)
    out.rows += _shares(common, batch.target_pt, classes, operand="pt", c_tr=c_tr)
    out.rows += _shares(common, batch.target_ft, classes, operand="ft", c_tr=c_tr)
  return out


def _shares(common: dict, labels, classes: list[str], **fields) -> list:
  counts = np.bincount(np.asarray(labels), minlength=len(classes))
  return [
    make_row(**common, step=0, seed=0, metric="label_share", value=count / counts.sum(), label=name, **fields)
    for name, count in zip(classes, counts.tolist(), strict=True)
    if count
  ]
