"""Accuracies of fine-tuned models (Tab. 3), and of reverse fine-tuned ones and their control (Fig. 27, Tab. 4)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.measures import Measure, Measured, row_of
from experiments.models import Models, Trained, lanes_of
from finetune_wrappers.training import step
from finetune_wrappers.training.stages import Stage, TrainStage


def stages(plan) -> list[Stage]:
  """Bases and fine-tuned models; with `config.reft.measure` also reverse fine-tuned ones and the controls."""
  reft = plan.refts() + plan.controls() if plan.config.reft.measure else []
  return [*plan.bases(), *plan.finetunes(), *reft]


def measure(models: Models) -> Measured:
  """Accuracy and loss rows.

  Fine-tuning: the first evaluation, the one at 1K steps if there is one (Tabs. 1 and 5 report it), and the last. reFT
  and controls: every evaluation. Compiled and pretrained models: evaluated here on this task, since tasks may share a
  pretrained model.
  """
  plan = models.plan
  out, evaluate = Measured(), None
  for stage in stages(plan):
    trained = models.load(stage)
    if not isinstance(stage, TrainStage) or stage.kind == "pretrain":
      evaluate = evaluate or _evaluation(plan, trained.model)
      out.rows += _rows_of(plan, trained, evaluate([trained.params])[0])
      continue
    chosen = range(len(trained.steps))
    if stage.kind == "finetune" and not plan.config.finetune.curves:
      kept = {0, 1000, int(trained.steps[-1])}
      chosen = [i for i in chosen if int(trained.steps[i]) in kept]
    out.rows += [row for i in chosen for row in _rows_at(plan, trained, i)]
  return out


def _rows_at(plan, trained: Trained, index: int) -> list:
  at = int(trained.steps[index])
  diverged = 0 <= trained.diverged_step <= at
  rows = []
  for (metric, c_te), value in zip(step.METRICS, trained.metrics[index].tolist(), strict=True):
    rows.append(row_of(plan, trained.stage, metric, None if diverged else value, step=at, c_te=c_te))
  loss = float(trained.losses[index])
  if at > 0:
    rows.append(row_of(plan, trained.stage, "loss", None if diverged or not math.isfinite(loss) else loss, step=at))
  return rows


def _evaluation(plan, model) -> Callable[[Sequence[Any]], list[Any]]:
  tests = step.test_sets(plan.task, plan.config.training.eval_size)
  return lanes_of(lambda params: step.evaluate(model, plan.task, tests, params), 1)


def _rows_of(plan, trained: Trained, values: np.ndarray) -> list:
  return [
    row_of(plan, trained.stage, metric, None if trained.diverged else float(value), c_te=c_te)
    for (metric, c_te), value in zip(step.METRICS, values, strict=True)
  ]


MEASURE = Measure(stages, measure)
