"""Confidence intervals, the guess baseline and censored passage times, computed with NumPy and SciPy.

With 3 to 5 seeds a percentile bootstrap is too narrow, so the interval of a mean is Student's t; the bootstrap is used
only for ratios of medians, which have no formula. The t interval is the mean plus or minus 9.0 standard deviations for
2 seeds, 2.5 for 3 and 1.2 for 5. It assumes normally distributed seeds, so near 0 or 100 % it is approximate.
Values of diverged runs are refused: leave those runs out and report how many there were.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # its submodules load at first use; scipy.stats takes over a second


class Interval(NamedTuple):
  """A confidence interval in the unit of the values; (nan, nan) if there are too few values."""

  low: float
  high: float


NO_INTERVAL = Interval(math.nan, math.nan)


class Passage(NamedTuple):
  """When a run first reached a threshold.

  Attributes:
    step: first evaluated step at or above the threshold; if censored, the last evaluated step below it.
    censored: whether the run ended below the threshold.
    after: the step evaluated before `step`; the run passed between the two. None if `step` is exact.
  """

  step: float
  censored: bool
  after: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MedianRatio:
  """Ratio of two median passage times.

  Attributes:
    ratio: of the medians; a bound if one of them was not reached, nan if neither was.
    low: lower end of the interval; nan if a group has fewer than 2 runs.
    high: upper end of the interval; inf if the runs do not bound it.
    lower_bound: whether `ratio` is a lower bound, because the numerator's median was not reached.
    upper_bound: whether `ratio` is an upper bound, because the denominator's median was not reached.
  """

  ratio: float
  low: float
  high: float
  lower_bound: bool
  upper_bound: bool = False


def mean_interval(values: Any, level: float = 0.95, *, bounds: tuple[float, float] | None = None) -> Interval:
  """Student's t interval of a mean over R seeds, R - 1 degrees of freedom; (nan, nan) for fewer than 2 values.

  Equal values give a width of zero: the interval covers the variation between seeds, not the error of measuring each
  value on a finite test set.

  Args:
    values: float [R], one for each seed.
    level: confidence, in (0, 1).
    bounds: range of possible means, (0, 1) for accuracies. The interval is clipped to it, which keeps its confidence:
      the true mean cannot lie in the part cut off.

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
  """Quantile of Student's t distribution.

  Args:
    probability: in (0, 1).
    degrees: of freedom, at least 1.

  Raises:
    ValueError: for a probability or degrees outside these ranges.
  """
  if not 0 < probability < 1 or degrees < 1:
    raise ValueError(f"probability, degrees: {probability}, {degrees} is not allowed; use (0, 1) and at least 1")
  return float(scipy.special.stdtrit(degrees, probability))  # scipy.stats.t.ppf without loading scipy.stats


def first_passage(*, steps: Any, accuracies: Any, threshold: float) -> Passage:
  """The first evaluated step whose accuracy reaches the threshold.

  The true passage lies between this evaluation and the one before. A run that diverged (NaN or None) ends
  at its last finite evaluation.

  Args:
    steps: [E], increasing.
    accuracies: [E], fractions; NaN or None after the run diverged.
    threshold: fraction.

  Raises:
    ValueError: if lengths differ, steps do not increase, or no evaluation is finite.
  """
  steps_E, accuracies_E = np.asarray(steps, float), np.asarray(accuracies, float)
  if steps_E.ndim != 1 or steps_E.shape != accuracies_E.shape or not np.all(np.diff(steps_E) > 0):
    raise ValueError("steps: must increase; give one for each accuracy")
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

  Assumes that censoring is independent of the passage. Divergence is not: report how many runs diverged.

  Args:
    passages: one for each run.

  Raises:
    ValueError: for no passages.
  """
  if not passages:
    raise ValueError("passages: empty; give at least one")
  steps, censored = [p.step for p in passages], [p.censored for p in passages]
  survival = scipy.stats.ecdf(scipy.stats.CensoredData.right_censored(steps, censored)).sf
  reached = survival.quantiles[survival.probabilities <= 0.5 + 1e-12]  # SciPy's half may be 0.5000000000000001
  return float(reached[0]) if len(reached) else math.inf


def bootstrap_median_ratio(
  *,
  numerator: Sequence[Passage],
  denominator: Sequence[Passage],
  level: float = 0.95,
  resamples: int = 2000,
  seed: int = 0,
) -> MedianRatio:
  """How many times longer the numerator's runs take: ratio of Kaplan-Meier medians, percentile interval over seeds.

  A median that was not reached is replaced by its lower bound (every censored run passes at its last step), and the
  ratio becomes a bound. A passage is known only up to the distance of evaluations, so each resample gives a range of
  ratios; the interval goes from a quantile of the lower ends to one of the upper ends, which `scipy.stats.bootstrap`
  cannot express. With three runs a group the interval is too narrow: read it as a minimum.

  Args:
    numerator: passages, one for each run, such as the control's.
    denominator: passages, one for each run, such as reFT's.
    level: confidence, in (0, 1).
    resamples: how often both groups are resampled.
    seed: of the resampling.

  Raises:
    ValueError: for an empty group, a level outside (0, 1) or no resamples.
  """
  _check(level, resamples)
  (floor_n, median_n), (floor_d, median_d) = _median_range(numerator), _median_range(denominator)
  open_n, open_d = math.isinf(median_n), math.isinf(median_d)
  known_n, known_d = floor_n if open_n else median_n, floor_d if open_d else median_d
  ratio = math.nan if open_n and open_d else _divide(known_n, known_d, math.nan)
  bounds = {"lower_bound": open_n and not open_d, "upper_bound": open_d and not open_n}
  if min(len(numerator), len(denominator)) < 2:
    return MedianRatio(ratio=ratio, low=math.nan, high=math.nan, **bounds)
  range_n, range_d = _resampled_range(numerator), _resampled_range(denominator)
  generator = np.random.default_rng(seed)
  lows, highs = np.empty(resamples), np.empty(resamples)
  for draw in range(resamples):
    low_d, high_d = range_d(generator)  # first, as it always was: the numbers drawn stay
    low_n, high_n = range_n(generator)
    lows[draw] = 0.0 if math.isinf(high_d) else _divide(low_n, high_d, 0.0)
    highs[draw] = math.inf if math.isinf(high_n) else _divide(high_n, low_d, math.inf)
  # Interpolating between a number and inf would give inf or nan.
  low = float(np.quantile(lows, (1 - level) / 2, method="lower"))
  high = float(np.quantile(highs, (1 + level) / 2, method="higher"))
  return MedianRatio(ratio=ratio, low=low, high=high, **bounds)


def _median_range(passages: Sequence[Passage]) -> tuple[float, float]:
  """Least and greatest value of the median, one evaluation apart; the greatest is inf if it was not reached."""
  median = kaplan_meier_median(passages)
  if math.isfinite(median):
    return kaplan_meier_median([p._replace(step=p.step if p.after is None else p.after) for p in passages]), median
  return kaplan_meier_median([Passage(p.step, censored=False) for p in passages]), math.inf


def _resampled_range(passages: Sequence[Passage]) -> Callable[[np.random.Generator], tuple[float, float]]:
  """Draws the runs with replacement and returns their median range; few runs give few different draws, so it caches."""
  range_of = functools.cache(lambda runs: _median_range([passages[run] for run in runs]))
  return lambda generator: range_of(tuple(sorted(generator.integers(len(passages), size=len(passages)).tolist())))


def _divide(numerator: float, denominator: float, undefined: float) -> float:
  """The quotient of two finite step counts; inf for x/0, `undefined` for 0/0."""
  if denominator == 0:
    return undefined if numerator == 0 else math.inf
  return numerator / denominator


def _finite(values: Any) -> np.ndarray:
  values = np.asarray(values, float).ravel()
  if not np.isfinite(values).all():
    raise ValueError("values: must be finite; leave diverged runs out and report how many there were")
  return values


def _check(level: float, resamples: int = 1) -> None:
  if not 0 < level < 1:
    raise ValueError(f"level: {level} is not allowed; use a number between 0 and 1")
  if resamples < 1:
    raise ValueError(f"resamples: {resamples} is not allowed; use at least 1")
