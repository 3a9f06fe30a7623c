"""Measures: from trained models to rows. Each module has `stages(plan)` and `measure(models)`."""

import dataclasses
from typing import Any

import numpy as np

from experiments.plan import Plan
from finetune_wrappers.reporting.rows import Row, make_row
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
