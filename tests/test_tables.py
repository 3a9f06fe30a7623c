"""Tables and verdicts: what a reader sees, against numbers worked out by hand or by SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from finetune_wrappers.reporting.claims import (
  Claim,
  Finding,
  claim_of_models,
  judge,
  judge_below,
  markdown_claims,
  weakest,
)
from finetune_wrappers.reporting.rows import make_row
from finetune_wrappers.reporting.tables import (
  cell_summary,
  comparison_table,
  format_accuracy,
  format_cell,
  format_points,
  markdown_table,
  paired_summary,
)
from finetune_wrappers.types import InputError


def row(value, seed=0, metric="acc_pt", **swept):
  return make_row(
    experiment="e",
    setting="tracr",
    task="counter",
    stage="finetune",
    metric=metric,
    step=10,
    seed=seed,
    value=value,
    diverged=value is None,
    **swept,
  )


def cells(markdown):
  return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in markdown.splitlines()]


def test_markdown_table_keeps_its_columns():
  table = markdown_table(["a", "b"], [["x|y", None], ["two\nlines", 3]])
  assert table == "| a | b |\n| --- | --- |\n| x\\|y |  |\n| two lines | 3 |\n"
  with pytest.raises(InputError, match="1 cells"):
    markdown_table(["a", "b"], [["x"]])


def test_cell_summary_is_mean_and_student_interval():
  values = [0.9, 0.7, 0.8]
  summary = cell_summary([row(value, seed) for seed, value in enumerate(values)])
  assert summary.mean == pytest.approx(0.8) and (summary.n, summary.n_diverged) == (3, 0)
  low, high = stats.t.interval(0.95, 2, loc=0.8, scale=stats.sem(values))
  assert summary.interval == pytest.approx((low, min(high, 1.0)))
  losses = cell_summary([row(value, seed, "loss") for seed, value in enumerate([0.0, 4.0])])
  assert losses.interval.low < 0 and losses.interval.high > 1


@pytest.mark.parametrize("metric", ["acc_pt", "attention_mass", "predicted_share", "guess_baseline"])
def test_no_interval_of_a_fraction_leaves_what_is_possible(metric):
  rows = [row(value, seed, metric) for seed, value in enumerate([0.0, 0.5, 1.0])]
  assert cell_summary(rows).interval == (0.0, 1.0)
  high = cell_summary([row(value, seed, metric) for seed, value in enumerate([0.9, 1.0])]).interval
  assert high.high == 1.0 and high.low == pytest.approx(0.95 - stats.t.ppf(0.975, 1) * 0.05)
  turned = [{**one, "value": 1 - one["value"]} for one in rows]
  assert paired_summary(rows, base=turned).interval == (-1.0, 1.0)


def test_no_interval_of_a_size_is_negative():
  moved = cell_summary([row(value, seed, "activation_shift") for seed, value in enumerate([0.0, 4.0])])
  assert moved.interval == (0.0, pytest.approx(2 + 2 * stats.t.ppf(0.975, 1)))


def test_a_paired_difference_takes_each_seed_against_itself():
  before = [row(value, seed) for seed, value in enumerate([0.1, 0.5, None, 0.2])]
  after = [row(value, seed) for seed, value in ((1, 0.8), (0, 0.4), (3, None))]
  found = paired_summary(after, base=before)
  assert found.mean == pytest.approx(0.3) and found.interval == pytest.approx((0.3, 0.3))
  assert (found.n, found.n_diverged) == (4, 2)
  assert format_points(found) == "+30.0 [+30.0, +30.0], diverged (2 of 4)"
  assert format_points(paired_summary(before[:1], base=after[1:2])) == "-30.0"
  lost = paired_summary([], base=[row(None, 0), row(None, 1)])
  assert math.isnan(lost.mean) and format_points(lost) == "diverged (2 of 2)"


@pytest.mark.parametrize(
  ("after", "before"),
  [
    ([row(0.1)], [row(0.1), row(0.2, 1)]),
    ([row(0.1), row(0.2, 1)], [row(0.1)]),
    ([row(0.1), row(0.2)], [row(0.1)]),
    ([row(0.1, metric="acc_ft")], [row(0.1)]),
  ],
)
def test_cells_that_do_not_pair_are_refused(after, before):
  with pytest.raises(InputError, match=r"\A[^\n]+\Z"):
    paired_summary(after, base=before)


def test_diverged_runs_are_left_out_and_counted():
  some = cell_summary([row(0.9, 0), row(None, 1), row(0.9, 2)])
  assert (some.mean, some.n, some.n_diverged) == (pytest.approx(0.9), 3, 1)
  every = cell_summary([row(None, 0), row(None, 1)])
  assert math.isnan(every.mean) and math.isnan(every.interval.low) and (every.n, every.n_diverged) == (2, 2)


@pytest.mark.parametrize(
  "rows", [[], [row(0.1), row(0.2)], [row(0.1), row(0.2, 1, "acc_ft")], [row(0.1, c_tr=0), row(0.2, c_tr=1)]]
)
def test_a_cell_of_anything_but_one_run_a_seed_is_refused(rows):
  with pytest.raises(InputError):
    cell_summary(rows)


@pytest.mark.parametrize(
  ("arguments", "text"),
  [
    ({"mean": 0.983, "interval": (0.971, 0.995)}, "98.3 [97.1, 99.5]"),
    ({"mean": 0.983}, "98.3"),
    ({"mean": 0.5, "interval": (0.4, 0.6), "n": 3, "n_diverged": 1}, "50.0 [40.0, 60.0], diverged (1 of 3)"),
    ({"mean": math.nan, "n": 3, "n_diverged": 3}, "diverged (3 of 3)"),
    ({"mean": math.nan}, "-"),
  ],
)
def test_format_accuracy(arguments, text):
  assert format_accuracy(**arguments) == text


def test_format_cell():
  assert format_cell([]) == "-"
  assert format_cell([row(None), row(0.25, 1)]) == "25.0, diverged (1 of 2)"


def test_comparison_lays_our_numbers_beside_the_papers():
  ours = [row(value, seed, metric, c_tr=1.0) for metric, value in (("acc_pt", 0.5), ("acc_ft", 0.9)) for seed in (0, 1)]
  ours += [row(0.3, seed, c_tr=0.1) for seed in (0, 1)]
  ours += [row(None, seed, c_tr=0.9) for seed in (0, 1)] + [row(2.0, metric="loss", c_tr=1.0)]
  paper = [
    {"c_tr": 1.0, "metric": "acc_pt", "value": 0.6},
    {"c_tr": 1.0, "metric": "acc_ft", "value": 0.9},
    {"c_tr": float(np.float32(0.1)), "metric": "acc_pt", "value": 0.0},
    {"c_tr": 0.9, "metric": "acc_pt", "value": 0.7},
    {"c_tr": 0.2, "metric": "acc_pt", "value": 0.1},
  ]
  comparison = comparison_table(ours, paper, keys=["c_tr"], metrics=["acc_pt", "acc_ft"])
  header, _, *lines = cells(comparison.markdown)
  assert header[:4] == ["c_tr", "acc_pt ours, %", "paper, %", "difference, points"] and len(header) == 7
  assert lines[0] == ["1.0", "50.0 [50.0, 50.0]", "60.0", "-10.0", "90.0 [90.0, 90.0]", "90.0", "+0.0"]
  assert lines[1] == ["0.1", "30.0 [30.0, 30.0]", "0.0", "+30.0", "-", "-", "-"]
  assert lines[2] == ["0.9", "diverged (2 of 2)", "70.0", "-", "-", "-", "-"]
  assert len(lines) == 3
  assert comparison.mean_absolute_difference == pytest.approx((0.1 + 0.0 + 0.3) / 3)
  assert (comparison.cells, comparison.only_ours, comparison.only_paper) == (3, 1, 1)


def test_comparison_of_nothing_in_common_says_so():
  comparison = comparison_table([row(0.5, c_tr=0.0)], [], keys=["c_tr"], metrics=["acc_pt"])
  assert math.isnan(comparison.mean_absolute_difference) and comparison.cells == 0 and comparison.only_ours == 1


def test_comparison_refuses_a_paper_value_given_twice():
  twice = [{"c_tr": 1.0, "c_te": c_te, "metric": "acc_pt", "value": 0.6} for c_te in (0.0, 1.0)]
  with pytest.raises(InputError, match="comes twice"):
    comparison_table([], twice, keys=["c_tr"], metrics=["acc_pt"])


def test_claims_are_a_table_in_order():
  claims = [Claim("A small weight", "yes", "60 points | 5 seeds"), Claim("Probes still read it", "partly", "3 of 4")]
  lines = markdown_claims(claims).splitlines()
  assert lines[2] == "| A small weight | yes | 60 points \\| 5 seeds |"
  assert lines[3].startswith("| Probes still read it | partly |") and len(lines) == 4


@pytest.mark.parametrize("fields", [("text", "maybe", "evidence"), ("", "yes", "evidence"), ("text", "yes", " ")])
def test_a_claim_without_answer_or_evidence_is_refused(fields):
  with pytest.raises(InputError):
    Claim(*fields)


def found(*values):
  return cell_summary([row(value, seed) for seed, value in enumerate(values)])


@pytest.mark.parametrize(
  ("values", "answer"),
  [
    ([0.7, 0.7, 0.7], "yes"),
    ([0.6, 0.6], "partly"),  # at the threshold is not above it
    ([0.5, 0.9], "partly"),  # the mean is above, its interval is not
    ([0.9], "partly"),  # no interval
    ([0.4, 0.4], "partly"),  # the interval is above the lower threshold
    ([0.4], "partly"),
    ([0.1, 0.9], "no"),
    ([0.2, 0.2], "no"),
    ([None, None], "not judged"),
    ([None, 0.7, 0.7], "yes"),
  ],
)
def test_a_claim_holds_if_the_whole_interval_is_above_the_threshold(values, answer):
  assert judge(found(*values), above=0.6, partly_above=0.2) == answer


@pytest.mark.parametrize(
  ("values", "answer"),
  [([0.1, 0.1], "yes"), ([0.2, 0.2], "no"), ([0.0, 0.3], "partly"), ([0.1], "partly"), ([None], "not judged")],
)
def test_a_claim_of_little_holds_if_the_whole_interval_is_below(values, answer):
  assert judge_below(found(*values), below=0.2) == answer


def test_a_claim_with_several_conditions_is_as_strong_as_the_weakest():
  assert weakest("yes", "partly") == "partly" and weakest("no", "partly", "yes") == "no" and weakest("yes") == "yes"
  assert weakest("no", "not judged") == "not judged"


@pytest.mark.parametrize(
  ("answers", "together"),
  [
    (["yes", "yes"], "yes"),
    (["yes", "no"], "partly"),
    (["partly", "partly"], "partly"),
    (["no", "no"], "no"),
    (["yes", "not judged"], "yes"),
    (["not judged"], "not judged"),
    ([], "not judged"),
  ],
)
def test_a_claim_about_several_models_holds_if_it_does_for_all_that_are_judged(answers, together):
  claim = claim_of_models("It holds", [Finding(f"model {i}", answer, f"{i} of 3") for i, answer in enumerate(answers)])
  assert claim.answer == together
  assert all(f"model {i} ({answer}): {i} of 3" in claim.evidence for i, answer in enumerate(answers))
