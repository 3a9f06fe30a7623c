"""The interface between data and everything else: stages and analyses know only this."""

import dataclasses
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
import optax

from finetune_wrappers.rules import Checked, Many, number, ruled
from finetune_wrappers.types import Batch, require

# Which answer trains: for O_PT, for O_FT, or a wrong one on purpose (randFT, App. E.4).
TARGETS = ("pt", "ft", "random")


class Output(Protocol):
  """How logits answer, for training and for every accuracy."""

  @property
  def scalable(self) -> bool:
    """Whether logits times a number above 0 say the same label, so that a loss may scale them."""
    ...

  def check(self, num_labels: int) -> None:
    """Raises InputError unless it can say so many labels."""

  def losses(self, logits: Any, labels: Any) -> Any:
    """The loss of each answer, float32 [...], from logits [..., V] and labels int [...]."""
    ...

  def predicted(self, logits: Any) -> Any:
    """The label that logits [..., V] say, int32 [...]."""
    ...

  def least_logits(self, num_labels: int) -> int:
    """How many logits an answer must have at least."""
    ...


@dataclasses.dataclass(frozen=True)
class Categorical:
  """One logit a label; cross-entropy in nats."""

  scalable = True

  def check(self, num_labels: int) -> None:
    """See Output."""

  def losses(self, logits: Any, labels: Any) -> Any:
    """See Output."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

  def predicted(self, logits: Any) -> Any:
    """See Output."""
    return logits.argmax(axis=-1)

  def least_logits(self, num_labels: int) -> int:
    """See Output."""
    return num_labels


@dataclasses.dataclass(frozen=True)
class Numerical(Checked):
  """One number, the first logit; squared error. A label is the place of its value; the nearest value is predicted.

  Attributes:
    values: of each label, ascending; float32 must tell them apart.
  """

  values: tuple[float, ...] = ruled(Many(number("as a label's value", lambda _: True)))
  scalable = False

  def __post_init__(self):
    super().__post_init__()
    rising = bool((np.diff(np.array(self.values, np.float32)) > 0).all())
    require(rising, "values", self.values, "ascending numbers that float32 tells apart")

  def check(self, num_labels: int) -> None:
    """See Output."""
    require(len(self.values) == num_labels, "output.values", self.values, f"one for each of {num_labels} labels")

  def losses(self, logits: Any, labels: Any) -> Any:
    """See Output."""
    return jnp.square(logits[..., 0] - jnp.array(self.values)[labels])

  def predicted(self, logits: Any) -> Any:
    """See Output."""
    return jnp.abs(logits[..., :1] - jnp.array(self.values)).argmin(axis=-1)

  def least_logits(self, num_labels: int) -> int:
    """See Output: one, whatever the labels."""
    return 1


class Trainable(Protocol):
  """What training knows of any task; an objective and an evaluator may need more, such as all of Task."""

  @property
  def name(self) -> str:
    """What rows call it: `counter`, `max_identifier`, `counting`, `index`, or your own."""
    ...

  @property
  def num_labels(self) -> int:
    """V, labels of the answer."""
    ...

  @property
  def output(self) -> Output:
    """How logits answer."""
    ...


class Task(Trainable, Protocol):
  """Strings with answers for O_PT and O_FT, and usually a spurious correlation of known probability."""

  @property
  def length(self) -> int:
    """T, positions of a string, special tokens and pads included."""
    ...

  @property
  def answer_position(self) -> int | tuple[int, ...]:
    """Where the answer is read, 0 being the first position; with several positions labels are [B, positions]."""
    ...

  @property
  def prompted(self) -> bool:
    """Whether the string itself says which operand is asked for."""
    ...

  @property
  def correlated(self) -> bool:
    """Whether there is a spurious correlation; without one C_Tr and C_Te can only be 0."""
    ...

  @property
  def holds_out(self) -> bool:
    """Whether strings of the test sets are kept from training, as where they are few; probes heed it too."""
    ...

  def sample(self, key: Any, batch_size: int, c_tr: Any) -> Batch:
    """Draws training strings; jittable.

    Args:
      key: JAX random key.
      batch_size: B, static.
      c_tr: C_Tr, the probability that a string carries the spurious correlation; may be traced.

    Returns:
      A Batch. No string carries the correlation by accident.
    """
    ...

  def sample_test(self, key: Any, batch_size: int, c_te: int) -> Batch:
    """Draws a test set at C_Te = 0 or 1 (static): no string carries the correlation, or every one."""
    ...

  def question(self, batch: Batch, target: Any) -> tuple[Any, Any]:
    """(tokens [B, T], labels [B]) of a batch asked for one of TARGETS; target is its place and may be traced."""
    ...

  def text_of(self, tokens_BxT: Any) -> tuple[Any, tuple[int, ...]]:
    """(the tokens that answers depend on, int [B, W]; token ids of the letters in them): controls of probes."""
    ...
