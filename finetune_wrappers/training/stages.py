"""Stages: frozen descriptions of one piece of training each, addressed by what they are."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable
from typing import Any

from finetune_wrappers.tasks.task import TARGETS, Task, check_probability
from finetune_wrappers.training.optim import Recipe
from finetune_wrappers.training.step import Lane
from finetune_wrappers.types import InputError, canonical_json, require

# A stage's key covers what it is, not the code that made it. Raise this when a change of the code changes
# results, so that old folders are left alone instead of being passed off as new ones.
SCHEMA = 1

KINDS = ("pretrain", "finetune", "reft", "scratch", "scratch_ft")


def describe(value: Any) -> Any:
  """A stage, task or settings object as JSON values; the text that keys are hashed from."""
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    told = [field.name for field in dataclasses.fields(value) if _told(field, value)]
    return {"class": type(value).__name__, **{name: describe(getattr(value, name)) for name in told}}
  if isinstance(value, (tuple, list)):
    return [describe(item) for item in value]
  return value


def _told(field: dataclasses.Field, value: Any) -> bool:
  """Whether a field is in the text: one that came later is not while it says what held before it came."""
  return not (field.metadata.get("came_later") and getattr(value, field.name) == field.default)


class _Keyed:
  @functools.cached_property
  def key(self) -> str:
    """16 hexadecimal digits of the hash of the whole chain, parents included."""
    text = canonical_json({"schema": SCHEMA, "stage": describe(self)})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class CompileStage(_Keyed):
  """A capability compiled by Tracr.

  Attributes:
    task: says vocabulary, length and both operands.
    operand: which of them is compiled: `pt`, or `ft` for the control of reFT.
    reading: `literal` or `constant_true`.
    mlp_exactness: Tracr's large number; 0 chooses it from the length.
  """

  task: Task
  operand: str
  reading: str
  mlp_exactness: int
  kind = "compile"

  def __post_init__(self):
    if self.operand not in ("pt", "ft"):
      raise InputError(f"operand: {self.operand!r} is not one of pt, ft")

  @property
  def architecture(self) -> tuple:
    """What decides the shapes of its weights: all but the operand."""
    return (self.task, self.reading)

  @property
  def label(self) -> str:
    """What making it is called."""
    return f"compiling {self.task.name}"


@dataclasses.dataclass(frozen=True)
class InitStage(_Keyed):
  """A network as it is before any training.

  Attributes:
    model: its description, such as a `GPTConfig`.
    seed: of the initial weights.
  """

  model: Any
  seed: int
  kind = "init"

  def __post_init__(self):
    require(self.seed >= 0, "seed", self.seed, "0 or more")

  @property
  def architecture(self) -> tuple:
    """What decides the shapes of its weights."""
    return (self.model,)

  @property
  def label(self) -> str:
    """What making it is called."""
    return "drawing initial weights"


RootStage = CompileStage | InitStage


@dataclasses.dataclass(frozen=True)
class TrainStage(_Keyed):
  """One run of training.

  Attributes:
    kind: finetune, reft, scratch_ft, ...: what the rows call it.
    parent: the stage whose weights it starts from.
    task: where its strings come from.
    target: the answer it trains: `pt`, `ft`, or `random` (randFT: a wrong answer where O_PT is asked
      for; which one is the task's).
    settings: what all lanes of a program share.
    learning_rate: the maximum of the schedule.
    c_tr: C_Tr of its strings.
    seed: of noise and data.
  """

  kind: str
  parent: "RootStage | TrainStage"
  task: Task
  target: str
  settings: Recipe
  learning_rate: float
  c_tr: float
  seed: int

  def __post_init__(self):
    if self.kind not in KINDS:
      raise InputError(f"kind: {self.kind!r} is not one of {', '.join(KINDS)}")
    if self.target not in TARGETS:
      raise InputError(f"target: {self.target!r} is not one of {', '.join(TARGETS)}")
    check_probability("c_tr", self.c_tr)
    if not 0 < self.learning_rate < float("inf"):
      raise InputError(f"learning_rate: {self.learning_rate} is not allowed; use a number above 0")
    if self.seed < 0:
      raise InputError(f"seed: {self.seed} is not allowed; use 0 or more")

  @property
  def label(self) -> str:
    """What a message calls it."""
    return f"{self.kind} {self.task.name} learning_rate={self.learning_rate} c_tr={self.c_tr} seed={self.seed}"

  @property
  def program(self) -> tuple:
    """(task, settings): what lanes must have in common to run as one program; with it goes the model's shape.

    Target and noise are values of a lane, so that fine-tuning, reFT and its control compile once.
    """
    return (self.task, self.settings.shared())

  @property
  def lane(self) -> Lane:
    """What sets it apart from the other lanes of its program; `target` by name."""
    return Lane(self.learning_rate, self.c_tr, self._stream, self.target, getattr(self.settings, "noise_std", 0.0))

  @property
  def _stream(self) -> int:
    """32 bits that seed a lane's noise and data: its seed and kind, but not its learning rate or C_Tr.

    So the lanes of a sweep differ in what is swept and not in noise as well.
    """
    text = f"{self.kind} {self.target} {self.seed}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@dataclasses.dataclass(frozen=True)
class TextStage(TrainStage):
  """One run of training on prompted text (PCFG).

  Attributes:
    prior: P_T(O) of its pretraining samples, by operand; the text has no others where nothing is mixed in.
    mix: probability that a string is a pretraining sample (App. E.1).
  """

  prior: tuple[float, ...]
  mix: float

  def __post_init__(self):
    super().__post_init__()
    fine = all(0 <= share <= 1 for share in self.prior) and abs(sum(self.prior) - 1) < 1e-6
    require(fine, "prior", self.prior, "shares from 0 to 1 that sum to 1, one for each operand")
    check_probability("mix", self.mix)

  @property
  def lane(self) -> Lane:
    """See TrainStage."""
    return super().lane._replace(prior=self.prior, mix=self.mix)


Stage = RootStage | TrainStage


def root_of(stage: Stage) -> RootStage:
  """Where the stage's weights began."""
  while isinstance(stage, TrainStage):
    stage = stage.parent
  return stage


def ancestors(stage: Stage) -> list[Stage]:
  """The chain down to the stage itself, oldest first."""
  chain = [stage]
  while isinstance(chain[0], TrainStage):
    chain.insert(0, chain[0].parent)
  return chain


def with_ancestors(stages: Iterable[Stage]) -> dict[str, Stage]:
  """They and their chains by key, parents first, each once."""
  return {s.key: s for stage in stages for s in ancestors(stage)}
