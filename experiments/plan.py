"""From a config to the stages it needs."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from ml_collections import ConfigDict

from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.stages import RootStage, Stage, TrainStage
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

  @property
  def evaluator(self) -> Accuracies:
    """What is measured of fine-tuned models."""
    ...

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

  def negatives(self) -> Sequence[Stage]:
    """Models that never had O_PT, which probes are compared with."""
    ...

  def swept(self, stage: Stage) -> dict[str, Any]:
    """What a row says about the stage it was measured on."""
    ...

  def labels(self, facts: dict) -> list[str]:
    """Symbol of each label; facts are the root stage's."""
    ...

  def build(self, stage: RootStage) -> tuple[Any, dict]:
    """(arrays, facts) of a root stage."""
    ...

  def outline(self) -> Any:
    """A Flax module whose parameters have the paths of the plan's models, if not their sizes; costs nothing."""
    ...

  def restore(self, facts: dict) -> Any:
    """The Flax module of a root stage."""
    ...


@contextlib.contextmanager
def within(section: str) -> Iterator[None]:
  """Errors of what is made from a section of the config, with the section before the key that they name."""
  try:
    yield
  except InputError as error:
    raise InputError(f"{section}.{error}") from error


def fields_from(kind: type, section: ConfigDict, **more: Any) -> Any:
  """A dataclass from those keys of a config's section that are its fields.

  Raises:
    InputError: for a value that is not allowed.
  """
  names = {field.name for field in dataclasses.fields(kind)} - more.keys()
  return kind(**{name: value for name, value in section.to_dict().items() if name in names}, **more)


def swept_values(stage: Any) -> dict[str, Any]:
  """The swept values of a fine-tuning by name.

  Any other training has its own as `reft_...`, where they are not the default; reverse fine-tuning has those of the
  fine-tuning that it reverses too.
  """
  if stage.kind == "finetune":
    return stage.swept()
  own = {f"reft_{name}": value for name, value in stage.swept(defaults=False).items()}
  return {**swept_values(stage.parent), **own} if stage.kind == "reft" else own


def check_reft(config: ConfigDict) -> None:
  """Raises InputError if reverse fine-tuning is asked for and no rate of it is below the fine-tuning's."""
  if config.reft.measure:
    most = max(config.finetune.learning_rates)
    fine = min(config.reft.learning_rates) < most
    allowed = f"one below the largest of finetune.learning_rates, {most}"
    require(fine, "reft.learning_rates", config.reft.learning_rates, allowed)
