"""Fine-tuning under each reading of details that the paper leaves open; rows carry `reading`."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from experiments import schema
from experiments.measures import Measure, Measured, metric_rows
from experiments.models import Models
from experiments.plan import Plan
from finetune_wrappers.training.stages import Stage
from finetune_wrappers.types import InputError, require

# Sections and keys that a reading may change; `task` stands for the task's own section.
_CHANGES = ("task", "training", "reading", "mlp_exactness")


def stages(plan: Plan) -> list[Stage]:
  """Every fine-tuning of every reading."""
  return [stage for _, variant in variants(plan) for stage in variant.finetunes()]


def measure(models: Models) -> Measured:
  """Accuracies at the first and the last evaluation."""
  out = Measured()
  for name, variant in variants(models.plan):
    for stage in variant.finetunes():
      trained = models.load(stage)
      for index in sorted({0, len(trained.steps) - 1}):
        at = int(trained.steps[index])
        diverged = 0 <= trained.diverged_step <= at
        fields = {"diverged": diverged, "step": at, "reading": name}
        out.rows += metric_rows(
          models.plan, stage, stage.evaluator.metrics(stage.task), trained.metrics[index], **fields
        )
  return out


def variants(plan: Plan) -> list[tuple[str, Plan]]:
  """(name, plan with one value changed) of each reading.

  Raises:
    InputError: for a key that the config lacks, or a value that is not allowed.
  """
  readings = plan.config.get("readings", ())
  once = len({name for name, *_ in readings}) == len(readings) > 0
  require(once, "readings", readings, "(name, key, value) of one or more, each name once")
  return [(name, _variant(plan, name, key, value)) for name, key, value in readings]


def _variant(plan: Plan, name: str, key: str, value: Any) -> Plan:
  values = plan.config.to_dict()
  first, *path = key.split(".")
  *path, last = [plan.task_name if first == "task" else first, *path]
  section: Any = values
  for part in path:
    section = section.get(part) if isinstance(section, dict) else None
  known = first in _CHANGES and isinstance(section, dict) and last in section
  require(known, "readings", (name, key, value), f"a key of the config that begins with {', '.join(_CHANGES)}")
  section[last] = value
  variant = dataclasses.replace(plan, config=ConfigDict(values, type_safe=False))
  try:
    schema.check_keys(variant.config)
    variant.check()
    variant.finetunes()
  except InputError as error:
    raise InputError(f"readings: {name!r}: {error}") from error
  return variant


MEASURE = Measure(stages, measure, needs=("readings",))
