"""Accuracies of fine-tuned models (Tab. 3), and of reverse fine-tuned ones and their control (Fig. 27, Tab. 4)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from experiments.measures import Measured, metric_rows, row_of
from experiments.models import Models, Trained
from finetune_wrappers.training.lanes import over_models
from finetune_wrappers.training.stages import Stage, TrainStage


def stages(plan) -> list[Stage]:
  """Models before and after fine-tuning; with `config.reft.measure` also after reverse fine-tuning, and controls."""
  reft = plan.refts() + plan.controls() if plan.config.reft.measure else []
  return [*plan.bases(), *plan.finetunes(), *reft]


def measure(models: Models) -> Measured:
  """Accuracy and loss rows.

  Fine-tuning: at its first evaluation, at 1K steps where there is one (Tab. 5 and Tab. 1 look there too) and at
  its end. reFT and control: at every evaluation. Compiled and pretrained models are evaluated here, on this task:
  several tasks may share a pretraining.
  """
  plan = models.plan
  out, evaluate = Measured(), None
  for stage in stages(plan):
    trained = models.load(stage)
    if not isinstance(stage, TrainStage) or stage.kind == "pretrain":
      evaluate = evaluate or _evaluation(plan, trained.model)
      values = evaluate([trained.params])[0]
      out.rows += metric_rows(plan, stage, plan.evaluator.metrics(plan.task), values, diverged=trained.diverged)
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
  metrics = trained.stage.evaluator.metrics(trained.stage.task)
  rows = metric_rows(plan, trained.stage, metrics, trained.metrics[index], diverged=diverged, step=at)
  for name, curve in {"loss": trained.losses, **trained.logs}.items() if at > 0 else ():
    value = float(curve[index])
    rows.append(row_of(plan, trained.stage, name, None if diverged or not math.isfinite(value) else value, step=at))
  return rows


def _evaluation(plan, model) -> Callable[[Sequence[Any]], list[Any]]:
  evaluator, task = plan.evaluator, plan.task
  tests = evaluator.test_sets(task)
  return over_models(model, lambda params: evaluator.measure(model, params, task, tests), 1)
