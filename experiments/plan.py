"""From a config to the stages it needs."""

import contextlib
from collections.abc import Iterator, Sequence
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


def check_reft(config: ConfigDict) -> None:
  """Raises InputError if reverse fine-tuning is asked for and no rate of it is below the fine-tuning's."""
  if config.reft.measure:
    most = max(config.finetune.learning_rates)
    fine = min(config.reft.learning_rates) < most
    allowed = f"one below the largest of finetune.learning_rates, {most}"
    require(fine, "reft.learning_rates", config.reft.learning_rates, allowed)
