"""Intervals, chance levels and censored passage times. NumPy only; any layer may use it.

Seeds are few (3 to 5), so the interval of a mean is Student's t: a percentile bootstrap of so few values is too
narrow, and is kept for statistics that have no formula. The t interval reaches 9.0 standard deviations to either side
for 2 seeds, 2.5 for 3 and 1.2 for 5, and takes seeds for normally distributed: near 0 or 100 % it is approximate.
Diverged runs never enter as NaN: the caller leaves them out and reports how many there were.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
  """A confidence interval in the unit of the values; (nan, nan) where none can be claimed."""

  low: float
  high: float


NO_INTERVAL = Interval(math.nan, math.nan)


class Passage(NamedTuple):
  """When a run first reached a threshold.

  Attributes:
    step: first evaluated step at or above the threshold; if censored, the last one known to be below it.
    censored: whether the run ended without reaching it.
    after: the evaluation before, after which it passed; None if the step is exact.
  """

  step: float
  censored: bool
  after: float | None = None


@dataclasses.dataclass(frozen=True)
class MedianRatio:
  """Ratio of two median passage times, b over a.

  Attributes:
    ratio: of the medians; a bound where one of them was not reached, nan where neither was.
    low: lower end of the interval; nan if a group has fewer than 2 runs.
    high: upper end; inf where the runs of b do not bound it.
    lower_bound: the median of b was not reached, so the true ratio is at least `ratio`.
    upper_bound: the median of a was not reached, so the true ratio is at most `ratio`.
  """

  ratio: float
  low: float
  high: float
  lower_bound: bool
  upper_bound: bool = False


def mean_interval(values: Any, level: float = 0.95, *, bounds: tuple[float, float] | None = None) -> Interval:
  """Student's t interval of a mean over R seeds, R - 1 degrees of freedom; (nan, nan) for fewer than 2 values.

  Values that are all equal give a width of zero: the interval speaks of seeds, not of the finite test set
  each value was measured on (see `wilson_interval`).

  Args:
    values: float [R], one for each seed.
    level: confidence, in (0, 1).
    bounds: clips the interval to what the mean can be, (0, 1) for accuracies; the part cut off cannot hold the true
      mean, so the confidence stays what it was.

  Raises:
    ValueError: for a NaN or infinite value, or a level outside (0, 1).
  """
  values = _finite(values)
  _check(level)
  if len(values) < 2:
    return NO_INTERVAL
  half = t_quantile((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
  low, high = bounds if bounds else (-math.inf, math.inf)
  mean = values.mean()
  return Interval(float(np.clip(mean - half, low, high)), float(np.clip(mean + half, low, high)))


def guess_baseline(labels: Any) -> float:
  """Accuracy of always guessing the most common label.

  Args:
    labels: integers, any shape, at least one.

  Raises:
    ValueError: for no labels.
  """
  counts = np.unique(np.asarray(labels), return_counts=True)[1]
  if not len(counts):
    raise ValueError("labels: empty; give at least one")
  return float(counts.max() / counts.sum())


def t_quantile(probability: float, degrees: int) -> float:
  """Quantile of Student's t distribution, by bisection on its exact distribution function.

  Args:
    probability: in [0.5, 1), else ValueError.
    degrees: of freedom, a whole number of at least 1, else ValueError.
  """
  if not 0.5 <= probability < 1 or degrees < 1:
    raise ValueError(f"probability, degrees: {probability}, {degrees} is not allowed; use [0.5, 1) and at least 1")
  low, high = 0.0, math.pi / 2
  for _ in range(100):
    middle = (low + high) / 2
    below = _t_central_mass(middle, degrees) < 2 * probability - 1
    low, high = (middle, high) if below else (low, middle)
  return math.sqrt(degrees) * math.tan(low)


def first_passage(steps: Any, accuracies: Any, threshold: float) -> Passage:
  """The first evaluated step whose accuracy reaches the threshold.

  The true passage lies between the evaluation before and this one. A run that diverged (NaN or None) ends
  at its last finite evaluation.

  Args:
    steps: [E], increasing.
    accuracies: [E], fractions; NaN or None from where the run diverged.
    threshold: fraction.

  Raises:
    ValueError: if lengths differ, steps do not increase, or no evaluation is finite.
  """
  steps_E, accuracies_E = np.asarray(steps, float), np.asarray(accuracies, float)
  if steps_E.ndim != 1 or steps_E.shape != accuracies_E.shape or not np.all(np.diff(steps_E) > 0):
    raise ValueError("steps: must increase, one for each accuracy")
  diverged_E = np.isnan(accuracies_E)
  end = int(diverged_E.argmax()) if diverged_E.any() else len(steps_E)
  if end == 0:
    raise ValueError("accuracies: no finite evaluation; leave the run out and count it as diverged")
  reached = np.flatnonzero(accuracies_E[:end] >= threshold)
  if len(reached):
    first = int(reached[0])
    return Passage(float(steps_E[first]), censored=False, after=float(steps_E[max(first - 1, 0)]))
  return Passage(float(steps_E[end - 1]), censored=True)


def kaplan_meier_median(passages: Sequence[Passage]) -> float:
  """Median passage time with right censoring: the first step at which survival is 1/2 or less, or inf.

  Assumes that censoring says nothing about the passage; a run that diverges breaks this, so count those.

  Args:
    passages: one for each run.

  Raises:
    ValueError: for no passages.
  """
  if not passages:
    raise ValueError("passages: empty; give at least one")
  survival = 1.0
  for step in sorted({p.step for p in passages if not p.censored}):
    at_risk = sum(p.step >= step for p in passages)
    passed = sum(p.step == step and not p.censored for p in passages)
    survival *= 1 - passed / at_risk
    if survival <= 0.5 + 1e-12:  # a half made of fractions is rounded
      return float(step)
  return math.inf


def bootstrap_median_ratio(
  passages_a: Sequence[Passage],
  passages_b: Sequence[Passage],
  *,
  level: float = 0.95,
  resamples: int = 2000,
  seed: int = 0,
) -> MedianRatio:
  """How many times longer b takes than a: ratio of Kaplan-Meier medians, percentile interval over seeds.

  A median that was not reached is replaced by what is certain (every censored run passing where it was last
  seen), and the ratio becomes a bound. In the interval each resample counts with its whole range. Three runs
  a group give an interval that is too narrow; read it as a minimum.

  Args:
    passages_a: one for each run, the denominator (reFT).
    passages_b: one for each run, the numerator (the control).
    level: confidence, in (0, 1).
    resamples: how many times the runs of both groups are drawn anew.
    seed: of the drawing.

  Raises:
    ValueError: for an empty group, a level outside (0, 1) or no resamples.
  """
  _check(level, resamples)
  (floor_a, median_a), (floor_b, median_b) = _median_range(passages_a), _median_range(passages_b)
  open_a, open_b = math.isinf(median_a), math.isinf(median_b)
  # Of evaluated steps; what is certain stands in for a median that was not reached.
  known_a, known_b = floor_a if open_a else median_a, floor_b if open_b else median_b
  ratio = math.nan if open_a and open_b else _divide(known_b, known_a, math.nan)
  bounds = {"lower_bound": open_b and not open_a, "upper_bound": open_a and not open_b}
  if min(len(passages_a), len(passages_b)) < 2:
    return MedianRatio(ratio, *NO_INTERVAL, **bounds)
  generator = np.random.default_rng(seed)
  lows, highs = np.empty(resamples), np.empty(resamples)
  for draw in range(resamples):
    low_a, high_a = _median_range([passages_a[i] for i in generator.integers(len(passages_a), size=len(passages_a))])
    low_b, high_b = _median_range([passages_b[i] for i in generator.integers(len(passages_b), size=len(passages_b))])
    lows[draw] = 0.0 if math.isinf(high_a) else _divide(low_b, high_a, 0.0)
    highs[draw] = math.inf if math.isinf(high_b) else _divide(high_b, low_a, math.inf)
  # No interpolation: between a number and inf there is nothing.
  low = float(np.quantile(lows, (1 - level) / 2, method="lower"))
  high = float(np.quantile(highs, (1 + level) / 2, method="higher"))
  return MedianRatio(ratio, low, high, **bounds)


def _median_range(passages: Sequence[Passage]) -> tuple[float, float]:
  """(what the median is at least, what it is at most): apart by the distance of evaluations, or inf if not reached."""
  median = kaplan_meier_median(passages)
  if math.isfinite(median):
    return kaplan_meier_median([p._replace(step=p.step if p.after is None else p.after) for p in passages]), median
  return kaplan_meier_median([Passage(p.step, censored=False) for p in passages]), math.inf


def _divide(numerator: float, denominator: float, undefined: float) -> float:
  """The quotient of two finite step counts; inf for x/0, `undefined` for 0/0."""
  if denominator == 0:
    return undefined if numerator == 0 else math.inf
  return numerator / denominator


def _t_central_mass(angle: float, degrees: int) -> float:
  """P(|T| < sqrt(degrees) * tan(angle)), the finite sums 26.7.3 and 26.7.4 of Abramowitz and Stegun (1964)."""
  sine, cosine = math.sin(angle), math.cos(angle)
  odd = degrees % 2
  term = cosine if odd else 1.0
  total = term if degrees > 1 else 0.0
  for k in range(2 + odd, degrees, 2):
    term *= cosine * cosine * (k - 1) / k
    total += term
  return (angle + sine * total) * 2 / math.pi if odd else sine * total


def _finite(values: Any) -> np.ndarray:
  values = np.asarray(values, float).ravel()
  if not np.isfinite(values).all():
    raise ValueError("values: must be finite; leave diverged runs out and count them")
  return values


def _check(level: float, resamples: int = 1) -> None:
  if not 0 < level < 1:
    raise ValueError(f"level: {level} is not allowed; use a number between 0 and 1")
  if resamples < 1:
    raise ValueError(f"resamples: {resamples} is not allowed; use at least 1")
