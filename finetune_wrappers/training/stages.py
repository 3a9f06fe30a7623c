"""Stages: frozen descriptions of one piece of training each, addressed by what they are."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from finetune_wrappers.models.model import Model
from finetune_wrappers.rules import ABOVE_0, COUNT, NOT_NEGATIVE, SEED, Checked, one_of, optional, ruled, text
from finetune_wrappers.tasks.task import Task, Trainable
from finetune_wrappers.training import first_release
from finetune_wrappers.training.evaluators import Evaluator
from finetune_wrappers.training.methods import Method, Subset
from finetune_wrappers.training.objectives import Objective
from finetune_wrappers.training.optim import Optimizer
from finetune_wrappers.training.swept import row_values, shared, swept, traced_values
from finetune_wrappers.types import REQUIRED, ROW_FIELDS, Params, canonical_json, require

# A stage's key covers what it is, not the code that made it. Raise this when a change of the code changes
# results, so that old folders are left alone instead of being passed off as new ones.
SCHEMA = 1


def describe(value: Any) -> Any:
  """A stage or what it is made of as JSON values; the text that keys are hashed from.

  A dataclass is told by its class and fields, a stage by its own `told`.
  """
  if isinstance(value, _Keyed):
    return describe(value.told())
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return describe(_fields_of(value))
  if isinstance(value, dict):
    return {name: describe(item) for name, item in value.items()}
  if isinstance(value, (tuple, list)):
    return [describe(item) for item in value]
  return value


def _fields_of(value: Any) -> dict[str, Any]:
  return {"class": type(value).__name__, **first_release.known_fields(value)}


class _Keyed:
  def told(self) -> dict[str, Any]:
    """What `describe` says of it."""
    return _fields_of(self)

  @functools.cached_property
  def key(self) -> str:
    """16 hexadecimal digits of the hash of the whole chain, parents included."""
    text = canonical_json({"schema": SCHEMA, "stage": describe(self)})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompileStage(_Keyed, Checked):
  """A capability compiled by Tracr.

  Attributes:
    task: says vocabulary, length and both operands.
    operand: which of them is compiled: `pt`, or `ft` for the control of reFT.
    reading: of the paper's listing, as the task knows it.
    mlp_exactness: Tracr's large number; 0 is the task's own, else twice the least that the program needs.
  """

  task: Task
  operand: str = ruled(one_of("pt", "ft"))
  reading: str = ruled(text("the name of a reading", r"\w+"), "literal")
  mlp_exactness: int = ruled(COUNT, 0)
  kind = "compile"
  seed = 0

  @property
  def architecture(self) -> tuple:
    """What decides the shapes of its weights: all but the operand."""
    return (self.task, self.reading)

  @property
  def label(self) -> str:
    """What making it is called."""
    return f"compiling {self.task.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitStage(_Keyed, Checked):
  """A network as it is before any training.

  Attributes:
    model: its description, such as a `GPTConfig`.
    seed: of the initial weights.
  """

  model: Any
  seed: int = ruled(SEED)
  kind = "init"

  @property
  def architecture(self) -> tuple:
    """What decides the shapes of its weights."""
    return (self.model,)

  @property
  def label(self) -> str:
    """What making it is called."""
    return "drawing initial weights"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenStage(_Keyed, Checked):
  """A model that somebody has already.

  Attributes:
    name: of it.
    checksum: of its parameters (`disk.checksum`); without it the stage has no key, and nothing from it can be kept.
  """

  name: str = ruled(text("a name of one line", r"[^\n]{1,200}"))
  checksum: str = ""
  kind = "given"
  seed = 0

  def told(self) -> dict[str, Any]:
    """See `describe`.

    Raises:
      InputError: without a checksum, as another model of this name would have the same key.
    """
    require(bool(self.checksum), "checksum", self.checksum, "disk.checksum(params), so that keys tell models apart")
    return _fields_of(self)

  @property
  def architecture(self) -> tuple:
    """What decides its model and the shapes of its weights; of another model of that name nothing is known."""
    return (self.name, self.checksum)

  @property
  def label(self) -> str:
    """What making it is called."""
    return f"taking {self.name}"


RootStage = CompileStage | InitStage | GivenStage


class Recipe(NamedTuple):
  """What lanes must have in common to train as one program; with it goes the model's shape.

  Attributes:
    task: where strings come from.
    objective: its traced values are the lanes' own, and so are the method's.
    method: which parameters train.
    optimizer: how they train.
    evaluator: what is measured on the way.
    traced: names of the traced values that lanes have; any other is None, which may be other code: no noise to draw, no
      penalty to add.
  """

  task: Trainable
  objective: Objective
  method: Method
  optimizer: Optimizer
  evaluator: Evaluator
  traced: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainStage(_Keyed, Checked):
  """One run of training.

  Attributes:
    kind: finetune, reft, scratch_ft, ...: what the rows call it.
    parent: the stage whose weights it starts from.
    task: where its strings come from.
    objective: what is trained.
    method: which parameters train, and how.
    optimizer: how long and by which steps.
    evaluator: what is measured on the way.
    learning_rate: the maximum of the schedule.
    noise_std: standard deviation of Gaussian noise on the parent's weights, before the first step; None leaves the
      sampler of noise out of the program.
    seed: of noise and data.
  """

  kind: str = ruled(
    text("a name in small letters, not compile, init or given", r"(?!(?:compile|init|given)$)[a-z][a-z0-9_]*")
  )
  parent: "RootStage | TrainStage"
  task: Trainable
  objective: Objective
  method: Method = Subset()
  optimizer: Optimizer
  evaluator: Evaluator
  learning_rate: float = swept(ABOVE_0)
  noise_std: float | None = swept(optional(NOT_NEGATIVE), None, row=False)
  seed: int = ruled(SEED)

  def told(self) -> dict[str, Any]:
    """See `describe`."""
    return first_release.fields_of(self) or _fields_of(self)

  def __post_init__(self):
    super().__post_init__()
    self.objective.check(self.task)
    measured = {name for metric in self.evaluator.metrics(self.task) for name, _ in metric.fields}
    rows = [*REQUIRED, *{*ROW_FIELDS, *measured}, *(name for part in self._parts for name in row_values(part))]
    lanes = ["stream", *(name for part in self._parts for name in traced_values(part))]
    twice = {name for names in (rows, lanes) for name in names if names.count(name) > 1 or name.startswith("reft_")}
    require(not twice, "objective, method", sorted(twice), "values of names that no other part and no row has")

  @property
  def _parts(self) -> tuple[Any, ...]:
    """What has swept values."""
    return (self, self.objective, self.method, self.optimizer, self.evaluator)

  @property
  def label(self) -> str:
    """What a message calls it."""
    values = " ".join(f"{name}={value}" for name, value in self.swept().items())
    return f"{self.kind} {self.task.name} {values} seed={self.seed}"

  def swept(self, *, defaults: bool = True) -> dict[str, Any]:
    """Every value that rows have of it, by name; without `defaults` only those that are not the default."""
    return {name: value for part in self._parts for name, value in row_values(part, defaults=defaults).items()}

  @property
  def recipe(self) -> Recipe:
    """What it shares with the other lanes of its program.

    Fine-tuning, reFT and its control differ in traced values, so that they compile once.
    """
    return Recipe(
      self.task,
      shared(self.objective),
      shared(self.method),
      shared(self.optimizer),
      shared(self.evaluator),
      traced=tuple(sorted(self._traced)),
    )

  @property
  def lane(self) -> dict[str, Any]:
    """What sets it apart from them: traced values by name, and `stream`, 32 bits that seed its noise and data.

    The stream hangs on seed and kind, but not on learning rate or C_Tr: the lanes of a sweep differ in what is swept
    and not in noise as well.
    """
    bits = hashlib.sha256(f"{self.kind} {self.objective.stream} {self.seed}".encode()).digest()[:4]
    return {**self._traced, "stream": np.uint32(int.from_bytes(bits, "big"))}

  @property
  def _traced(self) -> dict[str, Any]:
    return {name: value for part in self._parts for name, value in traced_values(part).items()}


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


def model_after(stage: Stage, model: Model) -> Model:
  """The model of a stage's weights, from its root's: methods on the way may have changed it."""
  return functools.reduce(lambda model, method: method.model(model), methods_to(stage), model)


def params_like(stage: Stage, params: Params) -> Params:
  """Parameters of the shapes that a stage's weights have, from its root's: to measure with what is not trained yet."""
  return functools.reduce(
    lambda own, method: method.join(*method.split(own, jax.random.key(0))), methods_to(stage), params
  )


def methods_to(stage: Stage) -> list[Method]:
  """The methods of the chain down to the stage, oldest first."""
  return [s.method for s in ancestors(stage) if isinstance(s, TrainStage)]
