"""Steps to revival with censoring, against SciPy's product-limit estimate and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from finetune_wrappers.analysis import Curve, Revival
from finetune_wrappers.analysis.revival import median
from finetune_wrappers.statistics import Passage, bootstrap_median_ratio
from finetune_wrappers.types import InputError

STEPS = [0, 10, 20, 50, 100]


def curve(reached=None, *, gone=None):
  """Reaches 0.9 at a step, or diverges at one."""
  accuracies = [0.9 if reached is not None and step >= reached else 0.2 for step in STEPS]
  lost = math.inf if gone is None else gone
  values = [math.nan if step >= lost else a for step, a in zip(STEPS, accuracies, strict=True)]
  return Curve(steps=STEPS, accuracies=values)


REFT = {3: curve(20), 4: curve(10), 5: curve(0), 6: curve(gone=0), 7: curve(gone=50), 8: curve(20)}
CONTROL = {3: curve(50), 4: curve(100), 5: curve(), 6: curve(100)}
FOUND = Revival.of(reft=REFT, control=CONTROL, threshold=0.8)


def test_runs_with_nothing_to_revive_or_no_start_are_left_out_and_those_that_never_do_are_censored():
  assert FOUND.reft == {
    3: Passage(20, False, 10), 4: Passage(10, False, 0), 7: Passage(20, True), 8: Passage(20, False, 10),
  }  # fmt: skip
  late = Passage(100, False, 50)
  assert FOUND.control == {3: Passage(50, False, 20), 4: late, 5: Passage(100, True), 6: late}
  assert FOUND.ratio == bootstrap_median_ratio(numerator=[*FOUND.control.values()], denominator=[*FOUND.reft.values()])
  assert FOUND.ratio.ratio == 100 / 20


@pytest.mark.parametrize("seed", range(20))
def test_medians_are_scipys(seed):
  generator = np.random.default_rng(seed)
  steps, censored = generator.integers(1, 20, 7), generator.random(7) < 0.4
  times = [Passage(float(step), bool(lost)) for step, lost in zip(steps, censored, strict=True)]
  own = median(times)
  survival = stats.ecdf(stats.CensoredData.right_censored([t.step for t in times], [t.censored for t in times])).sf
  reached = survival.quantiles[survival.probabilities <= 0.5 + 1e-12]
  assert own.censored == (len(reached) == 0) and (own.reached, own.runs) == (sum(not t.censored for t in times), 7)
  assert own.steps == (np.sort([t.step for t in times])[3] if own.censored else reached[0])


def test_rows_say_each_run_both_medians_and_the_ratio():
  rows = FOUND.rows()
  runs = {(row["stage"], row["seed"]): (row["value"], row["censored"]) for row in rows if "seed" in row}
  assert runs["reft", 4] == (10, False) and runs["reft", 7] == (20, True) and runs["scratch_ft", 5] == (100, True)
  assert len(runs) == 8 and {row["threshold"] for row in rows} == {0.8}
  assert [(row["stage"], row["value"]) for row in rows if row["metric"] == "median_steps"] == [
    ("reft", 20), ("scratch_ft", 100),
  ]  # fmt: skip
  (ratio,) = [row for row in rows if row["metric"] == "median_ratio"]
  assert ratio["value"] == 5 and ratio["low"] == FOUND.ratio.low and ratio["lower_bound"] is False
  assert all(
    value is None or not isinstance(value, float) or math.isfinite(value) for r in rows for value in r.values()
  )


def test_one_side_without_runs_has_no_ratio():
  alone = Revival.of(reft=REFT, control={}, threshold=0.8)
  assert alone.ratio is None and {row["stage"] for row in alone.rows()} == {"reft"}
  for threshold in (0.0, 1.5, math.nan):
    with pytest.raises(InputError, match=r"\Athreshold: [^\n]* is not a number above 0, at most 1"):
      Revival.of(reft=REFT, control=CONTROL, threshold=threshold)
