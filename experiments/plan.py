"""From a config to the stages it needs. Everything a user can get wrong in a config is found here."""

import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol

from ml_collections import ConfigDict

from finetune_wrappers.training.stages import RootStage, Stage, TextStage, TrainStage
from finetune_wrappers.types import InputError, require


class Plan(Protocol):
  """The stages of one task of a config: what trainer, measures and reports know of a setting.

  Attributes:
    config: of the run.
    task_name: which of its tasks.
    setting: `tracr`, `pcfg`.
    task: strings and answers, as `finetune_wrappers.tasks.task.Task`.
  """

  config: ConfigDict
  task_name: str
  setting: str

  @property
  def task(self) -> Any: ...

  def bases(self) -> Sequence[Stage]:
    """Models that have O_PT and are fine-tuned."""
    ...

  def finetunes(self) -> Sequence[TrainStage]:
    """Fine-tuning: every swept value and seed."""
    ...

  def refts(self) -> Sequence[TrainStage]:
    """Reverse fine-tuning of every fine-tuned model, at every reFT learning rate below its own."""
    ...

  def controls(self) -> Sequence[TrainStage]:
    """Models that never had O_PT, trained on it by reFT's recipe."""
    ...

  def swept(self, stage: Stage) -> dict[str, Any]:
    """What a row says about the stage it was measured on."""
    ...

  def classes(self, facts: dict) -> list[str]:
    """Symbol of each class of the answer; facts are the root stage's."""
    ...

  def build(self, stage: RootStage) -> tuple[Any, dict]:
    """(arrays, facts) of a root stage."""
    ...

  def restore(self, facts: dict) -> Any:
    """The Flax module of a root stage."""
    ...


def settings_from(kind: type, section: ConfigDict, **more: Any) -> Any:
  """Training settings of that kind from a config's section.

  Raises:
    InputError: for a value that is not allowed.
  """
  values = {**section.to_dict(), **more}
  values["eval_steps"] = tuple(values["eval_steps"])
  return kind(**values)


def finetuning_values(stage: TrainStage) -> dict[str, Any]:
  """The fine-tuning's swept values; a reverse fine-tuning has its parent's, and its own under its own name."""
  own = {"learning_rate": stage.learning_rate, "c_tr": stage.c_tr, "target": stage.target}
  if isinstance(stage, TextStage):
    own["mix"] = stage.mix
  if stage.kind == "finetune":
    return own
  reft = {"reft_learning_rate": stage.learning_rate, "reft_c_tr": stage.c_tr}
  if stage.kind == "reft" and isinstance(stage.parent, TrainStage):
    return {**finetuning_values(stage.parent), **reft}
  return reft


def check_sweep(config: ConfigDict, tasks: Sequence[str]) -> None:
  """Raises InputError for a task that does not exist, or a sweep that is empty, is none, or has a value twice."""
  for field in ("tasks", "seeds", "finetune.learning_rates", "finetune.c_trs", "finetune.targets"):
    require_some(config, field)
  for field in ("seeds", "finetune.learning_rates", "finetune.c_trs", "reft.learning_rates"):
    numbers(field, _value(config, field))
  if config.reft.measure:
    require_some(config, "reft.learning_rates")
    most = max(config.finetune.learning_rates)
    fine = min(config.reft.learning_rates) < most
    require(fine, "reft.learning_rates", tuple(config.reft.learning_rates), f"one below the fine-tuning's, {most}")
    require(0 < config.reft.threshold <= 1, "reft.threshold", config.reft.threshold, "above 0, at most 1")
  for name in config.tasks:
    if name not in tasks:
      raise InputError(f"tasks: {name!r} is not one of {', '.join(sorted(tasks))}")


def numbers(field: str, values: Sequence[Any]) -> tuple[float, ...]:
  """Those values as numbers.

  Raises:
    InputError: for one that is none.
  """
  try:
    found = tuple(float(value) for value in values)
  except (TypeError, ValueError):
    found = (math.nan,)
  require(all(map(math.isfinite, found)), field, values, "numbers")
  return found


def require_some(config: ConfigDict, field: str) -> None:
  """Raises InputError if that key of the config is empty, or has a value twice, which would count as two runs."""
  values = _value(config, field)
  if not values:
    raise InputError(f"{field}: empty; give at least one")
  require(len(set(values)) == len(values), field, tuple(values), "each value once")


def _value(config: ConfigDict, field: str) -> Any:
  return functools.reduce(getattr, field.split("."), config)
