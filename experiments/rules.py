"""What a value of a config may be: a rule for one, for a tuple of them, for a section with keys of its own."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from finetune_wrappers.types import InputError

LARGEST = 10**6  # strings, draws, units; more would not fit into any memory
_TINY, _HUGE = 2.0**-126, 2.0**127  # beyond them float32 has 0 or infinity, another value than was given


@dataclasses.dataclass(frozen=True)
class Rule:
  """What one value may be.

  Attributes:
    allowed: in words, after "is not".
    fits: whether a value is; called with anything.
  """

  allowed: str
  fits: Callable[[Any], bool]

  def check(self, field: str, value: Any) -> None:
    """Raises InputError unless the value fits."""
    if not self.fits(value):
      raise InputError(f"{field}: {shown(value)} is not {self.allowed}")


@dataclasses.dataclass(frozen=True)
class Many:
  """A tuple of values that fit one rule.

  Attributes:
    rule: for each of them.
    empty: whether there may be none.
    once: whether each must differ from the others; a sweep would count a value that stands there twice as two runs.
  """

  rule: Rule
  empty: bool = False
  once: bool = True

  def check(self, field: str, values: Any) -> None:
    """Raises InputError unless it is such a tuple."""
    if not isinstance(values, tuple):
      raise InputError(f"{field}: {shown(values)} is not a tuple, each value {self.rule.allowed}")
    if not (values or self.empty):
      raise InputError(f"{field}: empty; give at least one, {self.rule.allowed}")
    for value in values:
      self.rule.check(field, value)
    if self.once and len(set(values)) < len(values):
      raise InputError(f"{field}: {shown(values)} has a value twice; use each value once")


@dataclasses.dataclass(frozen=True)
class Named:
  """A section whose keys are the config's own."""

  rule: Many


def shown(value: Any) -> str:
  """A value in one short line."""
  text = "a section" if isinstance(value, Mapping | ConfigDict) else repr(value)
  return text if len(text) <= 120 else f"{text[:120]}..."


def whole(low: int, high: int = LARGEST) -> Rule:
  """Whole numbers; True and False are none."""
  text = f"a whole number from {low} to {high}"
  return Rule(text, lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high)


def number(text: str, fine: Callable[[float], bool]) -> Rule:
  """Numbers that float32 can hold, of which `fine` holds; `text` says so in words."""

  def fits(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
      return False
    return (value == 0 or _TINY <= abs(value) <= _HUGE) and fine(value)

  return Rule(f"a number {text} that float32 can hold", fits)


def one_of(*names: str) -> Rule:
  """One of these names."""
  return Rule(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def text(allowed: str, pattern: str) -> Rule:
  """A string that matches the whole pattern."""
  return Rule(allowed, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


FLAG = Rule("True or False", lambda value: isinstance(value, bool))
