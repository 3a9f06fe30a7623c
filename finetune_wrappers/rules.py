"""What a value may be: one rule beside each field that users set, in dataclasses and so in configs.

    @dataclasses.dataclass(frozen=True)
    class ProbeSettings(Checked):
      steps: int = ruled(STEPS, 4000)

An instance checks its fields; `rules_of` gives the rules by field, from which the schema of configs is made.
"""

import dataclasses
import numbers
import re
from collections.abc import Callable, Mapping
from typing import Any

from finetune_wrappers.types import InputError

LARGEST = 10**6  # strings, draws, units; more would not fit into any memory
INT32 = 2**31 - 1  # steps are counted in int32 on the device
UINT32 = 2**32 - 1  # JAX keeps no more bits of a seed
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

  def check(self, field: str, value: Any) -> Any:
    """The value, a number as Python's own, so that equal ones give equal keys; raises InputError unless it fits."""
    value = _plain(value)
    if not self.fits(value):
      raise InputError(f"{field}: {shown(value)} is not {self.allowed}")
    return value


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

  def check(self, field: str, values: Any) -> tuple:
    """The values, each as `Rule.check` gives it; raises InputError unless it is such a tuple."""
    if not isinstance(values, tuple):
      raise InputError(f"{field}: {shown(values)} is not a tuple, each value {self.rule.allowed}")
    if not (values or self.empty):
      raise InputError(f"{field}: empty; give at least one, {self.rule.allowed}")
    values = tuple(self.rule.check(field, value) for value in values)
    if self.once and len(set(values)) < len(values):
      raise InputError(f"{field}: {shown(values)} has a value twice; use each value once")
    return values


def _plain(value: Any) -> Any:
  """NumPy's numbers, and any other that Python's protocols know, as int or float."""
  if isinstance(value, bool) or not isinstance(value, numbers.Real):
    return value
  return int(value) if isinstance(value, numbers.Integral) else float(value)


def shown(value: Any) -> str:
  """A value in one short line."""
  text = "a section" if isinstance(value, Mapping) else repr(value)
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


def optional(rule: Rule) -> Rule:
  """None, or what the rule allows."""
  return Rule(f"None or {rule.allowed}", lambda value: value is None or rule.fits(value))


FLAG = Rule("True or False", lambda value: isinstance(value, bool))

COUNT, SIZE, STEPS = whole(0), whole(1), whole(1, INT32)
ANY_WHOLE = whole(-LARGEST)
SHARE = number("from 0 to 1", lambda value: 0 <= value <= 1)
SHARE_ABOVE_0 = number("above 0, at most 1,", lambda value: 0 < value <= 1)
SHARE_BELOW_1 = number("from 0, below 1,", lambda value: 0 <= value < 1)
ABOVE_0 = number("above 0", lambda value: value > 0)
NOT_NEGATIVE = number("of 0 or more", lambda value: value >= 0)
SEED = whole(0, UINT32)


def ruled(rule: "Rule | Many", default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
  """A dataclass field with its rule; further metadata is for who reads the field."""
  return dataclasses.field(default=default, metadata={"rule": rule, **metadata})


class Checked:
  """A dataclass whose fields are checked by their rules when an instance is made; numbers in them become Python's."""

  def __post_init__(self) -> None:
    for name, rule in rules_of(type(self)).items():
      object.__setattr__(self, name, rule.check(name, getattr(self, name)))


def rules_of(kind: type) -> "dict[str, Rule | Many]":
  """The rule of each field that has one."""
  return {field.name: field.metadata["rule"] for field in dataclasses.fields(kind) if "rule" in field.metadata}
