"""What is trained: the strings of a step, and the loss on them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from finetune_wrappers.models.model import Model, answer_logits, fitting
from finetune_wrappers.rules import ABOVE_0, FLAG, NOT_NEGATIVE, SHARE, Checked, Many, one_of, ruled
from finetune_wrappers.tasks.task import TARGETS
from finetune_wrappers.training.swept import swept
from finetune_wrappers.types import InputError, Params, require

POSITIONS = ("answer", "letters")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective(Checked):
  """Draws the strings of a step and says the loss on them. Frozen and hashable; traced fields may be tracers.

  Attributes:
    logs: names of what `loss` logs beside itself; means of them become curves and rows.
    fed: whether the host reads its batches (`feed`), as from files; else the device draws them (`draw`).
  """

  logs: ClassVar[tuple[str, ...]] = ()
  fed: ClassVar[bool] = False

  @property
  def stream(self) -> str:
    """What of it the seed of noise and data depends on, beside the stage's kind and seed."""
    return ""

  def check(self, task: Any) -> None:
    """Raises InputError for values that do not fit the task."""

  def draw(self, task: Any, key: Any, batch_size: int) -> Any:
    """A batch: a pytree of arrays [B, ...]; jittable."""
    raise NotImplementedError

  def feed(self, task: Any, lane: Mapping[str, Any], batch_size: int, steps: range) -> Any:
    """The batches of some steps of one lane, where `fed`: a pytree of NumPy arrays [steps, B, ...].

    A batch depends on the lane's values and the step only, so that a resumed run gets the very batches it would have.

    Args:
      task: says where the strings are.
      lane: the lane's traced values by name, and `stream`, which seeds it (`TrainStage.lane`).
      batch_size: B.
      steps: counted from 0; may be none.
    """
    raise NotImplementedError

  def loss(self, model: Model, params: Params, task: Any, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
    """(mean loss over a batch or a part of it, {name: scalar} of `logs`); differentiable in params."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers(Objective):
  """The answer of one operand on strings with the spurious correlation at C_Tr.

  Attributes:
    target: whose answer trains: `pt`, `ft`, or `random` (randFT, App. E.4: a wrong one where O_PT is asked; which
      one is the task's).
    c_tr: C_Tr, the probability that a string carries the correlation.
    positions: `answer`, where the answer is read, or `letters`, every letter's position.
    logit_scale: factor on the logits inside the loss.
  """

  target: str = swept(one_of(*TARGETS), "pt", number=lambda name: np.int32(TARGETS.index(name)))
  c_tr: float = swept(SHARE)
  positions: str = ruled(one_of(*POSITIONS), "answer")
  logit_scale: float = ruled(ABOVE_0, 1.0)

  @property
  def stream(self) -> str:
    """See Objective: not C_Tr, so that the lanes of a sweep do not differ in noise as well."""
    return self.target

  def check(self, task: Any) -> None:
    """See Objective."""
    require(task.correlated or not self.c_tr, "c_tr", self.c_tr, "0, as the task has no correlation")
    one = isinstance(task.answer_position, int) or self.positions == "answer"
    require(one, "positions", self.positions, "answer, as the task is answered at several positions")
    lettered = self.positions == "answer" or hasattr(task, "num_letters")
    require(lettered, "positions", self.positions, "answer, as the task does not say where its letters are")
    fine = self.logit_scale == 1 or task.output.scalable
    require(fine, "logit_scale", self.logit_scale, "1, as the task's answers are numbers")

  def draw(self, task: Any, key: Any, batch_size: int) -> tuple[Any, Any]:
    """(tokens [B, T], labels [B], or [B, positions] where the task is answered at several)."""
    return task.question(task.sample(key, batch_size, self.c_tr), self.target)

  def loss(self, model: Model, params: Params, task: Any, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
    """See Objective."""
    del key
    tokens, labels = batch
    if self.positions == "answer":
      logits = answer_logits(model, params, task, tokens)
    else:
      logits = model.text(params, tokens)[:, 1 : 1 + task.num_letters]
      labels = jnp.broadcast_to(labels[:, None], (len(labels), task.num_letters))
      fitting(logits, labels.shape, task)
    return task.output.losses(self.logit_scale * logits, labels).mean(), {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixedAnswers(Answers):
  """Answers, with pretraining samples mixed in (App. E.1): of those too only the answer trains.

  Attributes:
    prior: P_T(O) of the pretraining samples, by operand.
    mix: probability that a string is replaced by a pretraining sample.
    mixed: whether any lane mixes; compiles the sampler of pretraining text in.
  """

  prior: tuple[float, ...] = swept(Many(SHARE, once=False), row=False)
  mix: float = swept(SHARE, 0.0)
  mixed: bool = ruled(FLAG, False)

  def __post_init__(self):
    super().__post_init__()
    check_prior(self.prior)
    require(self.mixed or not self.mix, "mix", self.mix, "0 where mixed is False")

  def check(self, task: Any) -> None:
    """See Objective."""
    super().check(task)
    if self.mixed:
      _check_text(task, "mixed")

  def draw(self, task: Any, key: Any, batch_size: int) -> tuple[Any, Any]:
    """(tokens [B, T], labels [B]); a pretraining sample is a row like any other: its prompt and its answer."""
    tokens, labels = super().draw(task, key, batch_size)
    if not self.mixed:
      return tokens, labels
    key_row, key_sample = jax.random.split(jax.random.fold_in(key, 1))
    replaced_B = jax.random.uniform(key_row, (batch_size,)) < self.mix
    other_tokens, other_labels = task.sample_pretraining(key_sample, batch_size, self.prior)
    tokens = jnp.where(replaced_B[:, None], other_tokens, tokens)
    return tokens, jnp.where(replaced_B, other_labels, labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Objective):
  """Every next token of pretraining samples: prompt, answer and end.

  Attributes:
    prior: P_T(O), by operand.
    answer_weight: how often the answer's own loss is added to the mean over all tokens.
  """

  prior: tuple[float, ...] = swept(Many(SHARE, once=False), row=False)
  answer_weight: float = ruled(NOT_NEGATIVE, 0.0)

  def __post_init__(self):
    super().__post_init__()
    check_prior(self.prior)

  @property
  def stream(self) -> str:
    """See Objective; pretraining has always been seeded like training for O_PT."""
    return "pt"

  def check(self, task: Any) -> None:
    """See Objective."""
    _check_text(task, "objective")

  def draw(self, task: Any, key: Any, batch_size: int) -> tuple[Any, Any]:
    """(prompts [B, T], answers [B])."""
    return task.sample_pretraining(key, batch_size, self.prior)

  def loss(self, model: Model, params: Params, task: Any, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
    """See Objective."""
    del key
    tokens, labels = batch
    text_BxT = jnp.concatenate([tokens, labels[:, None]], axis=1)
    next_BxT = jnp.concatenate([text_BxT[:, 1:], jnp.full_like(labels, task.end)[:, None]], axis=1)
    logits = fitting(model.text(params, text_BxT), text_BxT.shape, task)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, next_BxT)
    return losses.mean() + self.answer_weight * losses[:, task.answer_position].mean(), {}


def _check_text(task: Any, field: str) -> None:
  if not hasattr(task, "sample_pretraining"):
    raise InputError(f"{field}: {task.name} has no pretraining text; use Answers, or a task such as PCFGTask")


def check_prior(prior: tuple[float, ...]) -> None:
  """Raises InputError unless the shares sum to 1."""
  fine = abs(sum(prior) - 1) < 1e-6
  require(fine, "prior", prior, "shares from 0 to 1 that sum to 1, one for each operand")
