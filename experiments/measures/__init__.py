"""Measures: from trained models to rows. Each module registers one as MEASURE; the module's name is the measure's."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.plan import Plan
from finetune_wrappers.reporting.rows import Row, make_row
from finetune_wrappers.training.stages import Stage, TrainStage


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
    stages: the stages it needs; raises InputError for a config that it cannot measure.
    measure: from the Models of a plan (`experiments.models`) to rows and arrays.
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
  trained = isinstance(stage, TrainStage)
  own = {"step": stage.settings.steps, "seed": stage.seed} if trained else {"step": 0, "seed": 0}
  return make_row(
    experiment=plan.config.name,
    setting=plan.config.setting,
    task=plan.task_name,
    stage=kind or stage.kind,
    metric=metric,
    value=value,
    diverged=value is None,
    **{**own, **plan.swept(stage), **fields},
  )
