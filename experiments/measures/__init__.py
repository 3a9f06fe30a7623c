"""Measures: from trained models to rows. Each module registers one as MEASURE; the module's name is the measure's."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.plan import Plan
from finetune_wrappers.reporting.rows import Row, make_row
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


@dataclasses.dataclass(frozen=True)
class Measure:
  """What a measure registers.

  Attributes:
    stages: those that it needs trained; raises InputError for a config that it cannot do.
    measure: from the Models of a plan (`experiments.models`) to what it finds.
    needs: keys of configs without which a setting does not offer it.
  """

  stages: Callable[[Any], Sequence[Stage]]
  measure: Callable[[Any], Measured]
  needs: tuple[str, ...] = ()


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
  last = getattr(getattr(stage, "settings", None), "steps", 0)
  known = {"step": last, "seed": getattr(stage, "seed", 0), **plan.swept(stage), **fields}
  return make_row(
    experiment=plan.config.name,
    setting=plan.config.setting,
    task=plan.task_name,
    stage=kind or stage.kind,
    metric=metric,
    value=value,
    diverged=value is None,
    **known,
  )
