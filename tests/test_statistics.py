"""Statistics against SciPy, textbook formulas written out here, and examples worked by hand."""

import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from finetune_wrappers.statistics import (
  Interval,
  Passage,
  bootstrap_median_ratio,
  first_passage,
  guess_baseline,
  kaplan_meier_median,
  mean_interval,
  t_quantile,
)

ROOT = pathlib.Path(__file__).parents[1]
LEVELS = (0.5, 0.9, 0.95, 0.99)


def seen(*steps):
  return [Passage(float(step), False) for step in steps]


def censored(*steps):
  return [Passage(float(step), True) for step in steps]


def ratio_of(fast, slow, **more):
  return bootstrap_median_ratio(numerator=slow, denominator=fast, **more)


def central_mass(t, degrees):
  """P(|T| < t) for Student's t, the finite sums 26.7.3 and 26.7.4 of Abramowitz and Stegun (1964)."""
  angle = math.atan(t / math.sqrt(degrees))
  sine, cosine, odd = math.sin(angle), math.cos(angle), degrees % 2
  term = cosine if odd else 1.0
  total = term if degrees > 1 else 0.0
  for k in range(2 + odd, degrees, 2):
    term *= cosine * cosine * (k - 1) / k
    total += term
  return (angle + sine * total) * 2 / math.pi if odd else sine * total


def product_limit_median(passages):
  """The median of Kaplan and Meier's product (1958), factor by factor."""
  survival = 1.0
  for step in sorted({p.step for p in passages if not p.censored}):
    at_risk = sum(p.step >= step for p in passages)
    survival *= 1 - sum(p.step == step and not p.censored for p in passages) / at_risk
    if survival <= 0.5 + 1e-12:  # the product misses the half by rounding
      return step
  return math.inf


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 19, 100, 999])
@pytest.mark.parametrize("probability", [0.5, 0.75, 0.9, 0.975, 0.995])
def test_t_quantile_holds_its_share_of_the_distribution(degrees, probability):
  t = t_quantile(probability, degrees)
  assert central_mass(t, degrees) == pytest.approx(2 * probability - 1, abs=1e-12)
  assert t == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-12)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_mean_interval_is_scipys(n, level):
  values = np.random.default_rng(n).normal(0.7, 0.2, n)
  expected = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
  assert mean_interval(values, level) == pytest.approx(expected, rel=1e-9)
  clipped = mean_interval(values, level, bounds=(0.0, 1.0))
  assert clipped == pytest.approx(np.clip(expected, 0, 1), rel=1e-9)


def test_mean_interval_of_three_seeds_covers_as_often_as_it_says():
  generator = np.random.default_rng(0)
  samples = generator.normal(size=(400, 3))
  student = np.mean([low <= 0 <= high for low, high in map(mean_interval, samples)])
  assert student == pytest.approx(0.95, abs=0.035)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_no_interval_from_fewer_than_two_seeds(values):
  interval = mean_interval(values)
  assert isinstance(interval, Interval) and math.isnan(interval.low) and math.isnan(interval.high)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_diverged_values_are_refused(bad):
  with pytest.raises(ValueError, match="diverged"):
    mean_interval([0.1, bad, 0.3])


@pytest.mark.parametrize(
  "call",
  [
    lambda: mean_interval([0, 1], 1.0),
    lambda: t_quantile(1.0, 3),
    lambda: t_quantile(0.9, 0),
    lambda: guess_baseline([]),
    lambda: kaplan_meier_median([]),
    lambda: ratio_of([], seen(1)),
    lambda: first_passage(steps=[0, 0], accuracies=[0.1, 0.2], threshold=0.5),
    lambda: first_passage(steps=[0, 1], accuracies=[0.1], threshold=0.5),
    lambda: first_passage(steps=[0, 1], accuracies=[math.nan, 0.9], threshold=0.5),
  ],
)
def test_what_cannot_be_used_is_refused_in_one_line(call):
  with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
    call()


def test_guess_baseline_is_the_share_of_the_commonest():
  assert guess_baseline([3, 1, 3, 2]) == 0.5
  assert guess_baseline(np.zeros((4, 5), int)) == 1.0
  labels = np.random.default_rng(0).binomial(20, 0.1, 100_000)
  assert guess_baseline(labels) == pytest.approx(stats.binom.pmf(2, 20, 0.1), abs=0.01)


@pytest.mark.parametrize(
  ("accuracies", "expected"),
  [
    ([0.0, 0.5, 0.8, 0.2], Passage(100, False, 10)),  # at the threshold counts; what comes after does not
    ([0.9, 0.1, 0.1, 0.1], Passage(0, False, 0)),
    ([0.0, 0.1, 0.2, 0.3], Passage(1000, True)),
    ([0.0, 0.1, math.nan, math.nan], Passage(10, True)),
    ([0.0, 0.1, None, 0.9], Passage(10, True)),  # a diverged run is over
    ([0.0, 0.9, math.nan, math.nan], Passage(10, False, 0)),
  ],
)
def test_first_passage(accuracies, expected):
  assert first_passage(steps=[0, 10, 100, 1000], accuracies=accuracies, threshold=0.8) == expected


def test_a_ratio_reaches_from_the_evaluation_before_a_passage_to_the_one_that_saw_it():
  """Runs that agree: all that is uncertain is where between two evaluations they passed."""
  fast, slow = [Passage(40, False, 30)] * 5, [Passage(150, False, 100)] * 5
  found = ratio_of(fast, slow)
  assert (found.ratio, found.low, found.high) == (150 / 40, 100 / 40, 150 / 30)
  found = ratio_of([Passage(10, False, 0)] * 5, slow)
  assert (found.ratio, found.low, found.high) == (15, 10, math.inf)


def test_kaplan_meier_by_hand():
  # At step 10 six are at risk, 5/6 survive; at 30 three, 5/6 * 2/3 = 0.56; at 50 one, 0.
  passages = [*seen(10, 30, 50), *censored(20, 20, 40)]
  assert kaplan_meier_median(passages) == 50
  assert kaplan_meier_median(seen(1, 2, 3)) == 2
  assert kaplan_meier_median(seen(1, 2, 3, 4)) == 2  # exactly one half survives
  assert kaplan_meier_median([*seen(5), *censored(5)]) == 5  # a run censored at 5 was still at risk at 5
  assert kaplan_meier_median([*seen(5), *censored(9, 9)]) == math.inf


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=20))
def test_kaplan_meier_median_is_that_of_the_product(runs):
  passages = [Passage(float(step), cut) for step, cut in runs]
  assert kaplan_meier_median(passages) == product_limit_median(passages)


@pytest.mark.parametrize("n", range(2, 31, 2))
def test_exactly_half_of_the_runs_is_the_median_despite_rounding(n):
  assert kaplan_meier_median(seen(*range(1, n + 1))) == n // 2
  assert kaplan_meier_median([*seen(*range(1, n // 2 + 1)), *censored(*[n] * (n // 2))]) == n // 2


@pytest.mark.parametrize("seed", range(3))
def test_interval_of_the_ratio_is_that_of_every_resample_by_itself(seed):
  """The same draws, one after another, with the textbook median of each."""
  fast = [Passage(20, False, 10), Passage(40, False, 30), Passage(40, False, 30), Passage(90, True)]
  slow = [Passage(100, False, 90), Passage(150, False, 100), Passage(300, False, 200), Passage(400, True)]
  generator, lows, highs = np.random.default_rng(seed), [], []
  for _ in range(200):
    (low_fast, high_fast), (low_slow, high_slow) = (
      textbook_range([group[i] for i in generator.integers(4, size=4)]) for group in (fast, slow)
    )
    lows.append(0.0 if math.isinf(high_fast) else low_slow / high_fast)
    highs.append(math.inf if math.isinf(high_slow) else high_slow / low_fast)
  found = ratio_of(fast, slow, resamples=200, seed=seed, level=0.9)
  assert found.low == np.quantile(lows, 0.05, method="lower")
  assert found.high == np.quantile(highs, 0.95, method="higher")


def textbook_range(passages):
  median = product_limit_median(passages)
  earliest = [p._replace(step=p.step if p.after is None else p.after) for p in passages]
  if math.isinf(median):
    earliest = [p._replace(censored=False) for p in passages]
  return product_limit_median(earliest), median


def test_ratio_of_medians_between_groups_that_all_passed():
  ratio = ratio_of(seen(10, 20, 30), seen(100, 200, 300))
  assert (ratio.ratio, ratio.lower_bound, ratio.upper_bound) == (10.0, False, False)
  assert 100 / 30 <= ratio.low < 10 < ratio.high <= 300 / 10
  constant = ratio_of(seen(10, 10), seen(40, 40))
  assert (constant.low, constant.ratio, constant.high) == (4.0, 4.0, 4.0)
  assert ratio == ratio_of(seen(10, 20, 30), seen(100, 200, 300))


def test_ratio_is_a_bound_where_a_median_was_not_reached():
  at_least = ratio_of(seen(10, 10, 10), [*seen(100), *censored(1000, 1000)])
  assert (at_least.ratio, at_least.lower_bound, at_least.upper_bound) == (100.0, True, False)
  assert at_least.low == 10.0 and at_least.high == math.inf
  at_most = ratio_of(censored(1000, 1000), seen(10, 10))
  assert (at_most.ratio, at_most.lower_bound, at_most.upper_bound) == (0.01, False, True)
  assert at_most.low == 0.0 and at_most.high == 0.01
  unknown = ratio_of(censored(10, 10), censored(10, 10))
  assert math.isnan(unknown.ratio) and (unknown.low, unknown.high) == (0.0, math.inf)
  assert not unknown.lower_bound and not unknown.upper_bound


def test_a_run_that_diverged_early_does_not_raise_the_bound():
  # One run is known to need more than 1000 steps, two only more than 10: the median is known to exceed 10.
  ratio = ratio_of(seen(1, 1, 1), censored(10, 10, 1000))
  assert ratio.ratio == 10.0 and ratio.lower_bound


def test_ratio_of_one_run_has_no_interval_and_zero_steps_do_not_crash():
  one = ratio_of(seen(10), seen(20, 30))
  assert one.ratio == 2.0 and math.isnan(one.low) and math.isnan(one.high)
  zero = ratio_of(seen(0, 0), seen(20, 30))
  assert zero.ratio == math.inf
  nothing = ratio_of(seen(0, 0), seen(0, 0))
  assert math.isnan(nothing.ratio) and (nothing.low, nothing.high) == (0.0, math.inf)


def test_interval_of_the_ratio_holds_the_truth_most_of_the_time():
  generator = np.random.default_rng(0)
  hits = 0
  for trial in range(30):
    a, b = generator.exponential(100, 9), generator.exponential(400, 9)
    cut_b = [Passage(min(step, 600.0), bool(step > 600)) for step in b]
    ratio = ratio_of(seen(*a), cut_b, resamples=100, seed=trial)
    hits += ratio.low <= 4 <= ratio.high
  assert hits >= 26


def test_importing_the_statistics_does_not_load_scipys_which_take_a_second():
  script = "import sys, finetune_wrappers.statistics; print([name for name in sys.modules if name == 'scipy.stats'])"
  done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
  assert done.stdout == "[]\n"
