"""Fine-tuning under each reading of what the paper leaves open; rows carry `reading`."""

import copy
import dataclasses
from typing import Any

from experiments.measures import Measured, row_of
from experiments.models import Models
from experiments.tracr import TracrPlan
from finetune_wrappers.training import step
from finetune_wrappers.training.stages import Stage
from finetune_wrappers.types import InputError


def stages(plan: TracrPlan) -> list[Stage]:
  """Every fine-tuning of every reading."""
  return [stage for _, variant in variants(plan) for stage in variant.finetunes()]


def measure(models: Models) -> Measured:
  """Accuracies at the first and the last evaluation."""
  out = Measured()
  for name, variant in variants(models.plan):
    for stage in variant.finetunes():
      trained = models.load(stage)
      for index in (0, len(trained.steps) - 1):
        at = int(trained.steps[index])
        diverged = 0 <= trained.diverged_step <= at
        for (metric, c_te), value in zip(step.METRICS, trained.metrics[index].tolist(), strict=True):
          fields = {"step": at, "c_te": c_te, "reading": name}
          out.rows.append(row_of(models.plan, stage, metric, None if diverged else value, **fields))
  return out


def variants(plan: TracrPlan) -> list[tuple[str, TracrPlan]]:
  """(name, plan with that one value changed).

  Raises:
    InputError: for a key that the config lacks.
  """
  found = []
  for name, key, value in plan.config.readings:
    config = copy.deepcopy(plan.config)
    *path, last = key.replace("task.", f"{plan.task_name}.", 1).split(".")
    section: Any = config
    try:
      for part in path:
        section = section[part]
      section[last] = value
    except (KeyError, AttributeError, TypeError) as error:
      raise InputError(f"readings: {key!r} of {name!r} is not a key of the config") from error
    found.append((name, dataclasses.replace(plan, config=config)))
  return found
