"""Values that are swept: a field says so once, and its value reaches the compiled program and the rows.

A traced value belongs to a lane: runs that differ in traced values only train as one program. Any other value is
shared, since it decides shapes or code; so does whether a traced value is None, and runs that differ in it are two
programs. Both reach rows under the field's own name, unless the field says otherwise.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from finetune_wrappers.rules import Many, Rule, ruled

T = TypeVar("T")


def swept(
  rule: Rule | Many,
  default: Any = dataclasses.MISSING,
  *,
  traced: bool = True,
  row: bool = True,
  number: Callable[[Any], Any] = np.float32,
) -> Any:
  """A dataclass field whose value runs of a sweep differ in.

  Args:
    rule: what it may be.
    default: if any.
    traced: whether it is a lane's own, an argument of the compiled program.
    row: whether rows have it.
    number: a traced value as the program takes it.
  """
  return ruled(rule, default, row=row, number=number if traced else None)


def row_values(part: Any, *, defaults: bool = True) -> dict[str, Any]:
  """The values of a dataclass that rows have, by name; without `defaults` only those that are not the default."""
  fields = [field for field in dataclasses.fields(part) if field.metadata.get("row")]
  found = {field.name: (getattr(part, field.name), field.default) for field in fields}
  return {name: value for name, (value, default) in found.items() if defaults or value != default}


def traced_values(part: Any) -> dict[str, Any]:
  """The traced values of a dataclass as numbers, by name; None is none."""
  traced = {name: (getattr(part, name), number) for name, number in _numbers(part).items()}
  return {name: number(value) for name, (value, number) in traced.items() if value is not None}


def shared(part: T) -> T:
  """The same dataclass with its traced values left open: what lanes of one program have in common."""
  return with_values(part, dict.fromkeys(_numbers(part)))


def with_values(part: T, values: Mapping[str, Any]) -> T:
  """The same dataclass with traced values from `values`, which may be tracers; others in there are passed over."""
  found = copy.copy(part)
  for name in _numbers(part):
    if name in values:
      object.__setattr__(found, name, values[name])
  return found


def _numbers(part: Any) -> dict[str, Callable[[Any], Any]]:
  return {field.name: number for field in dataclasses.fields(part) if (number := field.metadata.get("number"))}
