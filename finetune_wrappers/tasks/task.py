"""The interface between data and everything else: stages and analyses know only this."""

from typing import Any, Protocol

from finetune_wrappers.types import Batch, InputError

# Which answer trains: for O_PT, for O_FT, or a wrong one on purpose (randFT, App. E.4).
TARGETS = ("pt", "ft", "random")


class Task(Protocol):
  """Strings with answers for O_PT and O_FT and a spurious correlation of known probability.

  Attributes:
    name: `counter`, `max_identifier`, ...
    length: T, positions of a string, BOS and pads included.
    num_classes: V, classes of the answer.
    answer_position: where the answer is read, BOS being 0.
    prompted: whether the string itself says which operand is asked for.
  """

  name: str
  length: int
  num_classes: int
  answer_position: int
  prompted: bool

  def sample(self, key: Any, batch_size: int, c_tr: Any) -> Batch:
    """Draws training strings; jittable.

    Args:
      key: JAX random key.
      batch_size: B, static.
      c_tr: C_Tr, the probability that a string carries the spurious correlation; may be traced.

    Returns:
      A Batch. Exactly the strings that carry the correlation were meant to.
    """
    ...

  def sample_test(self, key: Any, batch_size: int, c_te: int) -> Batch:
    """Draws a test set at C_Te = 0 or 1 (static): no string carries the correlation, or every one."""
    ...

  def question(self, batch: Batch, target: Any) -> tuple[Any, Any]:
    """(tokens [B, T], classes [B]) of a batch asked for one of TARGETS; target is its place and may be traced."""
    ...


def check_probability(field: str, value: float) -> None:
  """Raises InputError unless value is a probability."""
  if not 0.0 <= value <= 1.0:
    raise InputError(f"{field}: {value} is not a probability; use 0 to 1")
