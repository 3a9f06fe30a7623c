"""The interface between data and everything else: stages and analyses know only this."""

from typing import Any, Protocol

from finetune_wrappers.types import Batch, InputError

# Which answer trains: for O_PT, for O_FT, or a wrong one on purpose (randFT, App. E.4).
TARGETS = ("pt", "ft", "random")


class Task(Protocol):
  """Strings with answers for O_PT and O_FT and a spurious correlation of known probability."""

  @property
  def name(self) -> str:
    """`counter`, `max_identifier`, `counting`, `index`."""
    ...

  @property
  def length(self) -> int:
    """T, positions of a string, special tokens and pads included."""
    ...

  @property
  def num_labels(self) -> int:
    """V, labels of the answer."""
    ...

  @property
  def answer_position(self) -> int:
    """Where the answer is read, 0 being the first position."""
    ...

  @property
  def prompted(self) -> bool:
    """Whether the string itself says which operand is asked for."""
    ...

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
    """(tokens [B, T], labels [B]) of a batch asked for one of TARGETS; target is its place and may be traced."""
    ...


def check_probability(field: str, value: float) -> None:
  """Raises InputError unless value is a probability."""
  if not 0.0 <= value <= 1.0:
    raise InputError(f"{field}: {value} is not a probability; use 0 to 1")
