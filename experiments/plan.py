"""From a config to the stages it needs."""

import abc
import contextlib
import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from ml_collections import ConfigDict

from experiments import schema
from finetune_wrappers.training.evaluators import Accuracies, Evaluator
from finetune_wrappers.training.stages import RootStage, Stage, TrainStage
from finetune_wrappers.types import InputError, require

MOST_RUNS = 20_000  # that one command plans; planning them takes some ten seconds


@dataclasses.dataclass(frozen=True)
class Plan(abc.ABC):
  """The stages of one task of a config: what trainer, measures and reports know of a setting.

  Attributes:
    config: of the run.
    task_name: which of its tasks.
    data: folder for what tasks keep beside models, such as tokens of stories; None where nothing is read or trained.
    axes: what fine-tuning sweeps, slowest first: the row's field to the config's key.
    base_axes: likewise, what the models that are fine-tuned sweep; seeds come last.
    reverses: whether a rate of reFT, the first, goes with a rate of the fine-tuning; "a smaller one" (paper App. B).
  """

  config: ConfigDict
  task_name: str
  data: Any = None
  axes: ClassVar[Mapping[str, str]] = {
    "target": "finetune.targets",
    "learning_rate": "finetune.learning_rates",
    "c_tr": "finetune.c_trs",
  }
  base_axes: ClassVar[Mapping[str, str]] = {}
  reverses: ClassVar[Callable[[float, float], bool]] = operator.lt

  @property
  def evaluator(self) -> Evaluator:
    """What is measured of fine-tuned models."""
    return Accuracies(self.config.training.eval_size)

  def prepare(self, progress: Callable[[int, int, str], None]) -> None:
    """Makes the data that stages need and that is not kept yet.

    Args:
      progress: called with (done, in all or 0 where that is not known, what is made) as it goes.
    """
    del progress

  @property
  @abc.abstractmethod
  def task(self) -> Any:
    """Strings and answers, as `finetune_wrappers.tasks.task.Task`."""

  @abc.abstractmethod
  def check(self) -> None:
    """Raises InputError for keys that do not fit each other."""

  @abc.abstractmethod
  def outline(self) -> Any:
    """A Flax module whose parameters have the paths of the plan's models, if not their sizes; costs nothing."""

  @abc.abstractmethod
  def negatives(self) -> list[Stage]:
    """Models that never had O_PT, which probes are compared with."""

  @abc.abstractmethod
  def labels(self, facts: dict) -> list[str]:
    """Symbol of each label; facts are the root stage's."""

  @abc.abstractmethod
  def build(self, stage: RootStage) -> tuple[Any, dict]:
    """(arrays, facts) of a root stage."""

  @abc.abstractmethod
  def restore(self, facts: dict) -> Any:
    """The Flax module of a root stage."""

  @abc.abstractmethod
  def _base(self, seed: int, **swept: Any) -> Stage:
    """The model with O_PT that is fine-tuned, by `base_axes`."""

  @abc.abstractmethod
  def _controls(self, seed: int) -> Sequence[tuple[str, Stage]]:
    """(kind of its training, model) of every model that never had O_PT."""

  @abc.abstractmethod
  def _stage(
    self, kind: str, parent: Stage, seed: int, *, target: str, learning_rate: float, c_tr: float
  ) -> TrainStage:
    """Training of a model; further `axes` are further keywords, with defaults for reFT."""

  def bases(self) -> list[Stage]:
    """Models that have O_PT and are fine-tuned."""
    return list(dict.fromkeys(base for base, _ in self._seeded_bases()))

  def finetunes(self) -> list[TrainStage]:
    """Fine-tuning of every base: every swept value and seed."""
    bases = self._seeded_bases()
    return [self._stage("finetune", base, seed, **swept) for swept in self._points(self.axes) for base, seed in bases]

  def refts(self) -> list[TrainStage]:
    """Reverse fine-tuning of every fine-tuned model, at every reFT learning rate that goes with its own."""
    return [
      self._reft("reft", parent, parent.seed, rate)
      for parent in self.finetunes()
      for rate in self.config.reft.learning_rates
      if type(self).reverses(rate, parent.learning_rate)
    ]

  def controls(self) -> list[TrainStage]:
    """Models that never had O_PT, trained on it by reFT's recipe."""
    return [
      self._reft(kind, model, seed, rate)
      for rate in self.config.reft.learning_rates
      for seed in self.config.seeds
      for kind, model in self._controls(seed)
    ]

  def swept(self, stage: Stage) -> dict[str, Any]:
    """What a row says of the stage it measures: the swept values of a fine-tuning by name.

    Any other training has its own as `reft_...`, where they are not the default; reverse fine-tuning has those of the
    fine-tuning that it reverses too.
    """
    if not isinstance(stage, TrainStage):
      return {}
    if stage.kind == "finetune":
      return stage.swept()
    own = {f"reft_{name}": value for name, value in stage.swept(defaults=False).items()}
    return {**self.swept(stage.parent), **own} if stage.kind == "reft" else own

  def _points(self, axes: Mapping[str, str]) -> list[dict[str, Any]]:
    values = [schema.value_at(self.config, key) for key in axes.values()]
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*values)]

  def _seeded_bases(self) -> list[tuple[Stage, int]]:
    points = self._points(self.base_axes)
    return [(self._base(seed, **swept), seed) for swept in points for seed in self.config.seeds]

  def _reft(self, kind: str, parent: Stage, seed: int, rate: float) -> TrainStage:
    return self._stage(kind, parent, seed, target="pt", learning_rate=rate, c_tr=self.config.reft.c_tr)


def plans(config: ConfigDict, data: Any = None) -> list[Plan]:
  """A plan for each task of the config; `data` as in Plan.

  Raises:
    InputError: for a key whose value it cannot hold, or keys that do not fit each other.
  """
  schema.check(config)
  kind = schema.setting_of(config).plan
  _check_reft(config, kind)
  _check_size(config, kind)
  found = [kind(config, name, data) for name in config.tasks]
  for plan in found:
    plan.check()
  return found


def _check_reft(config: ConfigDict, kind: type[Plan]) -> None:
  """Raises InputError if reverse fine-tuning is asked for and no rate of it is below the fine-tuning's."""
  if config.reft.measure:
    most = max(config.finetune.learning_rates)
    fine = kind.reverses(min(config.reft.learning_rates), most)
    allowed = f"one below the largest of finetune.learning_rates, {most}"
    require(fine, "reft.learning_rates", config.reft.learning_rates, allowed)


def _check_size(config: ConfigDict, kind: type[Plan]) -> None:
  """Raises InputError for more runs than a plan can hold in seconds and some hundred megabytes."""
  swept = [schema.value_at(config, key) for key in {**kind.axes, **kind.base_axes}.values()]
  each = 1 + (len(config.reft.learning_rates) if config.reft.measure else 0)
  runs = each * math.prod(map(len, (config.tasks, config.seeds, *swept)))
  if runs > MOST_RUNS:
    raise InputError(f"seeds: with all swept values {runs} runs; give at most {MOST_RUNS} at once, the rest apart")


@contextlib.contextmanager
def within(section: str) -> Iterator[None]:
  """Prefixes errors with the section's name."""
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
