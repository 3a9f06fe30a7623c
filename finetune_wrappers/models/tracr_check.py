"""A compiled program beside the RASP interpreter: where they differ, and which step is to blame."""

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tracr.rasp import rasp

from finetune_wrappers.models.tracr_program import Tried, said
from finetune_wrappers.types import InputError

_SAME = 1e-6  # two roundings of one number
_VISIBLE = 1e-4  # no rounding


class Readings:
  """What a compiled model says of every step.

  Attributes:
    strings: which of the strings that were tried, as places.
  """

  def __init__(self, directions: list[str], value_sets: dict[str, set], start: int, residual: np.ndarray):
    """Of the strings from place `start` on.

    Args:
      directions: label of each residual direction [D].
      value_sets: values of each step by its `label`.
      start: place of the first string.
      residual: [N, L, D] after the last block, at the letters.
    """
    self.strings = range(start, start + len(residual))
    self.value_sets = value_sets
    self._directions = directions
    self._residual = residual
    self._places: dict[str, tuple[list, list[int]]] = {}

  def of(self, sop: rasp.SOp, i: int, *, length: int) -> list[Any]:
    """A step's values at each letter of string `i`."""
    if sop.label not in self._places:
      self._places[sop.label] = self._where(sop)
    symbols, places = self._places[sop.label]
    found = self._residual[i - self.strings.start, :length][:, places]
    return found[:, 0].tolist() if rasp.is_numerical(sop) else [symbols[place] for place in found.argmax(axis=1)]

  def _where(self, sop: rasp.SOp) -> tuple[list, list[int]]:
    """The symbols of a step's directions, and their places."""
    if rasp.is_numerical(sop):
      return [], [self._directions.index(sop.label)]
    symbols = {f"{sop.label}:{value}": value for value in self.value_sets[sop.label]}
    own = [place for place, label in enumerate(self._directions) if label in symbols]
    return [symbols[self._directions[place]] for place in own], own


def compare(
  sops: list[rasp.SOp], tried: Tried, readings: Readings, positions: Sequence[int] | None, tolerance: float
) -> tuple[int, float]:
  """Of the readings' strings: how many answers were compared, and the largest difference of a numerical one.

  Args:
    sops: the steps that have values, each after those that it reads, the program last.
    tried: the interpreter's values.
    readings: the compiled model's.
    positions: letters that are compared, from 1; None is all.
    tolerance: for numbers, absolute up to 1 and relative above.

  Raises:
    InputError: where they differ by more.
  """
  program = sops[-1]
  compared, largest = 0, 0.0
  for i in readings.strings:
    string, wanted = tried.strings[i], tried.values[program.label][i]
    for position, (want, have) in enumerate(
      zip(wanted, readings.of(program, i, length=len(string)), strict=True), start=1
    ):
      if want is None or (positions is not None and position not in positions):
        continue
      off = _off(program, want, have)
      if not off <= tolerance:
        field, cause = _cause(sops, tried, readings, i, tolerance)
        raise InputError(
          f"{field}: the compiled program says {_short(have)} and the RASP interpreter {_short(want)} at letter"
          f" {position} of {' '.join(map(str, string))}: {cause}"
          + ("" if tried.given else "; give check_inputs if such strings do not occur")
        )
      compared, largest = compared + 1, max(largest, off)
  return compared, largest


def _off(sop: rasp.SOp, want: Any, have: Any) -> float:
  """How far apart; categories are or are not the same."""
  if rasp.is_numerical(sop):
    return abs(have - want) / max(1.0, abs(want))
  return 0.0 if have == want else math.inf


def _cause(sops: list[rasp.SOp], tried: Tried, readings: Readings, i: int, tolerance: float) -> tuple[str, str]:
  """The field to change, and why: the first step that is wrong anywhere on that string."""
  length = len(tried.strings[i])
  for sop in sops:
    if isinstance(sop, rasp.TokensType | rasp.IndicesType):
      continue  # embedded, whatever follows
    wanted, have = tried.values[sop.label][i], readings.of(sop, i, length=length)
    for place, (want, answer) in enumerate(zip(wanted, have, strict=True)):
      if want is not None and not _off(sop, want, answer) <= max(tolerance, _VISIBLE):
        return _why(sop, tried, readings, i, place, want, answer)
  return "program", "no single step is wrong by that much, their errors add up"


def _why(sop, tried: Tried, readings: Readings, i: int, place: int, want: Any, answer: Any) -> tuple[str, str]:
  step, values = said(sop), lambda inner: tried.values[inner.label][i]
  if isinstance(sop, rasp.Map) and rasp.is_numerical(sop.inner):
    known = [value for value, _ in known_values(sop, readings.value_sets)]
    given = values(sop.inner)[place]
    if min(abs(value - given) for value in known) > _SAME:
      return "program", _unknown(sop, given, known)
  elif isinstance(sop, rasp.Map) and rasp.is_numerical(sop) and want < 0:
    return "program", f"Tracr writes a negative number as 0 where a category becomes a number, as in {step}"
  elif isinstance(sop, rasp.Aggregate) and rasp.is_categorical(sop):
    return "program", f"Tracr only moves categories, and {step} averages several to {_short(want)}"
  elif isinstance(sop, rasp.Aggregate):
    return "tolerance", f"attention blurs {step}, {_short(answer)} instead of {_short(want)}; shorten max_seq_len"
  elif isinstance(sop, rasp.SequenceMap):
    return "program", f"Tracr does not compile {step} rightly there"
  return "mlp_exactness", (
    f"{step} is {_short(answer)} instead of {_short(want)}; raise mlp_exactness or shorten max_seq_len"
  )


def _unknown(sop: rasp.Map, given: float, known: list[float]) -> str:
  thresholds = [(low + high) / 2 for low, high in itertools.pairwise(known)]
  taken = known[bisect.bisect_right(thresholds, given)]
  return (
    f"{said(sop)} is given {_short(given)}, which Tracr takes for {_short(taken)}: it knows 0 and 1/n of an average"
  )


def refuse_unknown_values(sops: list[rasp.SOp], value_sets: dict[str, set], tried: Tried) -> None:
  """Raises InputError for a step that reads numbers which Tracr does not know, where not all strings can be tried."""
  for sop in sops:
    if isinstance(sop, rasp.Map) and rasp.is_numerical(sop.inner):
      known = np.array([value for value, _ in known_values(sop, value_sets)])
      reached = {value for values in tried.values[sop.inner.label] for value in values if value is not None}
      for given in sorted(reached):
        if np.abs(known - given).min() > _SAME:
          raise InputError(f"program: {_unknown(sop, given, known.tolist())}")


def known_values(sop: rasp.Map, value_sets: dict[str, set]) -> list[tuple[float, Any]]:
  """The numbers that a step can be given, as Tracr sees it, in order, each with the step's answer."""
  answers = []
  for value in sorted(value_sets[sop.inner.label]):
    try:
      answers.append((value, sop.f(value)))
    except ArithmeticError:
      continue
  return [(value, answer) for value, answer in answers if answer is not None]


def _short(value: Any) -> str:
  return f"{value:.6g}" if isinstance(value, float) else repr(value)
