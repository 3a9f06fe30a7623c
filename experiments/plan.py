"""From a config to the stages it needs. Everything a user can get wrong in a config is found here."""

import dataclasses
import functools
from typing import Any

from ml_collections import ConfigDict

from finetune_wrappers.tasks.tracr_tasks import TASKS, make_task
from finetune_wrappers.training.optim import TrainSettings
from finetune_wrappers.training.stages import CompileStage, TrainStage
from finetune_wrappers.types import InputError


@dataclasses.dataclass(frozen=True)
class Plan:
  """The stages of one task of a config.

  Args:
    config: as `configs.common.tracr_config` lays it out.
    task_name: `counter` or `max_identifier`.
  """

  config: ConfigDict
  task_name: str

  @property
  def task(self) -> Any:
    """The task, from its settings in the config."""
    return make_task(self.task_name, **self.own.task.to_dict())

  @property
  def own(self) -> Any:
    """The config's section for this task."""
    return self.config[self.task_name]

  def compiled(self, operand: str = "pt") -> CompileStage:
    """The capability compiled for one operand."""
    return CompileStage(self.task, operand, self.config.reading, self.config.mlp_exactness)

  def finetunes(self) -> list[TrainStage]:
    """Fine-tuning, every target, learning rate, C_Tr and seed."""
    finetune = self.config.finetune
    return [
      self._stage("finetune", self.compiled(), target, rate, c_tr, seed)
      for target in finetune.targets
      for rate in finetune.learning_rates
      for c_tr in finetune.c_trs
      for seed in self.config.seeds
    ]

  def refts(self) -> list[TrainStage]:
    """Reverse fine-tuning of every fine-tuned model, at every reFT learning rate below its own."""
    return [
      self._stage("reft", parent, "pt", rate, self.config.reft.c_tr, parent.seed)
      for parent in self.finetunes()
      for rate in self.config.reft.learning_rates
      if rate < parent.learning_rate
    ]

  def controls(self) -> list[TrainStage]:
    """Scr. + FT: compiled for O_FT, then trained on O_PT by reFT's recipe."""
    return [
      self._stage("scratch_ft", self.compiled("ft"), "pt", rate, self.config.reft.c_tr, seed)
      for rate in self.config.reft.learning_rates
      for seed in self.config.seeds
    ]

  def _stage(self, kind, parent, target, rate, c_tr, seed) -> TrainStage:
    return TrainStage(kind, parent, self.task, target, self._settings(parent), float(rate), float(c_tr), int(seed))

  def _settings(self, parent) -> TrainSettings:
    """Noise is added to compiled weights only, once."""
    noise = self.own.noise_std if isinstance(parent, CompileStage) else 0.0
    shared = self.config.training.to_dict()
    shared["eval_steps"] = tuple(shared["eval_steps"])
    return TrainSettings(**shared, noise_std=noise, microbatches=self.own.microbatches)


def plans(config: ConfigDict) -> list[Plan]:
  """A plan for each task of the config.

  Raises:
    InputError: for a task that does not exist, or an empty sweep.
  """
  for field in ("tasks", "seeds", "finetune.learning_rates", "finetune.c_trs", "finetune.targets"):
    _require_some(config, field)
  if config.reft.measure:
    _require_some(config, "reft.learning_rates")
  for name in config.tasks:
    if name not in TASKS:
      raise InputError(f"tasks: {name!r} is not one of {', '.join(sorted(TASKS))}")
  return [Plan(config, name) for name in config.tasks]


def _require_some(config: ConfigDict, field: str) -> None:
  if not functools.reduce(getattr, field.split("."), config):
    raise InputError(f"{field}: empty; give at least one")
