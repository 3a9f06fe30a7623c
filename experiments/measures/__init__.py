"""Measures: from trained models to rows. Each module has `stages(plan)` and `measure(models)`."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from experiments.plan import Plan
from finetune_wrappers.reporting.rows import Row, make_row
from finetune_wrappers.training.evaluators import Metric
from finetune_wrappers.training.schedule import steps_of
from finetune_wrappers.training.stages import Stage


@dataclasses.dataclass
class Measured:
  """What a measure found.

  Attributes:
    rows: for rows.jsonl.
    arrays: for arrays.npz: maps, which would be long as rows.
  """

  rows: list[Row] = dataclasses.field(default_factory=list)
  arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def row_of(plan: Plan, stage: Stage, metric: str, value: float | None, *, kind: str = "", **fields: Any) -> Row:
  """A row about one stage.

  Args:
    plan: names the experiment and the task.
    stage: measured; its swept values and seed go into the row.
    metric: what was measured.
    value: None for a diverged lane.
    kind: the row's `stage`; the stage's own kind by default.
    **fields: `step` (the last by default), and whatever else was swept.
  """
  known = {"step": steps_of(stage), "seed": stage.seed, **plan.swept(stage), **fields}
  return make_row(
    experiment=plan.config.name,
    setting=plan.setting,
    task=plan.task_name,
    stage=kind or stage.kind,
    metric=metric,
    value=value,
    diverged=value is None,
    **known,
  )


def rows_of(plan: Plan, stage: Stage, found: Iterable[dict[str, Any]], *, diverged: bool, **fields: Any) -> list[Row]:
  """Rows of a procedure of `finetune_wrappers.analysis` about one stage; without values if that stage diverged.

  Args:
    plan: names the experiment and the task.
    stage: measured.
    found: what the procedure's `rows()` gave.
    diverged: whether the stage's numbers do not count.
    **fields: what the procedure does not know.
  """
  out = []
  for own in found:
    row = {**own, **fields}
    metric, value, kind = row.pop("metric"), row.pop("value"), row.pop("stage", "")
    out.append(row_of(plan, stage, metric, None if diverged else value, kind=kind, **row))
  return out


def metric_rows(
  plan: Plan, stage: Stage, metrics: Sequence[Metric], values: Any, *, diverged: bool, **fields: Any
) -> list[Row]:
  """Rows of an evaluator's metrics, [M], about one stage; see `rows_of`."""
  found = [
    {"metric": metric.name, "value": value, **dict(metric.fields)}
    for metric, value in zip(metrics, np.asarray(values).tolist(), strict=True)
  ]
  return rows_of(plan, stage, found, diverged=diverged, **fields)
