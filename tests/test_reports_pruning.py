"""Reports on pruning from rows made by hand: lifts, single weights, collapse, and claims that hold or fail."""

import numpy as np
import pytest
from handmade import answers, facts_of, guess_rows, pruned, share_rows, single_rows, table_lines

from configs import quickstart as demo
from experiments.reports import histograms, pruning, single_weights


@pytest.fixture(scope="module")
def facts():
  return facts_of(demo.get_config("smoke"))


@pytest.mark.parametrize(
  ("gradient", "random", "answer"),
  [
    ({0: 0.2, 1: 0.9, 2: 0.5}, {0: 0.2, 1: 0.2, 2: 0.2}, "yes"),
    ({0: 0.2, 1: 0.9, 2: 0.5}, {0: 0.2, 1: 0.85, 2: 0.2}, "no"),
    ({0: 0.6, 1: 0.5, 2: 0.3}, {0: 0.6, 1: 0.1, 2: 0.1}, "no"),
    ({0: 0.6, 1: 0.61, 2: 0.3}, {0: 0.6, 1: 0.1, 2: 0.1}, "no"),  # random falls; the score lifts nothing
  ],
)
def test_pruning_counts_only_if_the_score_lifts_more_than_random(gradient, random, answer):
  curves = {"gradient": gradient, "random": random}
  rows = [r for score, c in curves.items() for r in pruned({k: [v] * 2 for k, v in c.items()}, score=score)]
  assert answers(pruning.curve_claims(rows)) == [answer]


def test_pruning_is_judged_by_scope_at_c_tr_1_and_without_diverged_lanes():
  rows = []
  for scope, rate, best in (("all", 0.1, 0.9), ("all", 0.01, 0.2), ("near_zero", 0.1, 0.9)):
    for score, high in (("gradient", best), ("random", 0.2)):
      where = {"score": score, "scope": scope, "learning_rate": rate}
      rows += pruned({0: [0.1, 0.3, None], 1: [high, high, None]}, **where)
      rows += pruned({0: [0.0] * 3, 1: [1.0] * 3}, c_tr=0.0, **where)
  claims = pruning.curve_claims(rows)
  assert answers(claims) == ["partly", "yes"]
  assert "20.0 [0.0, 100.0], diverged (1 of 3) to 90.0 [90.0, 90.0], diverged (1 of 3) at K = 1" in claims[1].evidence
  assert pruning.curve_claims(pruned({0: [None], 1: [None]})) == []


@pytest.mark.parametrize(("lift", "answer"), [(0.7, "yes"), (0.4, "partly"), (0.1, "no")])
def test_single_weights_are_told_by_how_much_they_lift(facts, lift, answer):
  rows = single_rows([[0.0, 0.05], [lift - 0.05, lift + 0.05]])
  rows += single_rows([[0.3, 0.1], [-0.1, -0.2]], base=(0.5, 0.6), metric="acc_ft")
  other = single_rows([[0.8, 0.8]], scope="all") + pruned({0: [0.1, 0.2]}, unit="neuron")
  part = single_weights.single_weights([*rows, *other], facts)
  assert answers(part.claims) == [answer] and f"{100 * lift:+.1f} points (W2)" in part.claims[0].evidence
  first, second = table_lines(part.section[1])[2:]
  assert first[3:] == ["W1", "B1 W_V[one,1] (2)", "+2.5 (from +0.0 to +5.0)", "+20.0 (from +10.0 to +30.0)"]
  assert second[5] == f"{100 * lift:+.1f} (from {100 * lift - 5:+.1f} to {100 * lift + 5:+.1f})"
  assert second[6] == "-15.0 (from -20.0 to -10.0)"
  heights = [bar.get_height() for bar in part.figure.axes[0].patches]
  assert heights == pytest.approx([15, 17.5, 15 + 100 * lift, 55, 75, 40])


@pytest.mark.parametrize(
  ("by_k", "answer"),
  [
    ({0: [0.9, 0.9], 1: [0.5, 0.5]}, "yes"),  # what it was before pruning does not count
    ({0: [0.5, 0.5], 1: [0.95, 0.9]}, "no"),
    ({0: [0.5, 0.5], 1: [0.05, 0.1]}, "no"),
    ({0: [0.5, 0.5], 1: [0.5, 0.5], 4: [0.9, 0.9]}, "partly"),
    ({0: [0.5, 0.5], 1: [0.5, 0.5, 0.5, 1.0]}, "no"),  # one seed answers always the same
  ],
)
def test_a_collapse_to_one_class_is_seen(facts, by_k, answer):
  part = histograms.histograms(share_rows(by_k), facts)
  assert answers(part.claims) == [answer]
  means = [f"{100 * np.mean([max(s, 1 - s) for s in shares]):.1f}" for shares in by_k.values()]
  assert table_lines(part.section[1])[2][3:] == means


def test_the_figure_by_k_shows_the_first_unit_and_scope_of_several(facts):
  rows = guess_rows("counter")
  for metric in ("acc_pt", "acc_ft"):
    for score in ("gradient", "random"):
      rows += pruned({0: [0.2, 0.4], 5: [0.7, 0.9]}, metric=metric, score=score)
      rows += pruned({0: [0.0] * 2, 5: [0.0] * 2}, metric=metric, score=score, unit="neuron")
      rows += pruned({0: [0.0] * 2, 5: [0.0] * 2}, metric=metric, score=score, scope="all")
  (axis,) = pruning.make(rows, {}, facts).figures["figure"].axes
  line = {line.get_label(): line for line in axis.lines}["O_PT, gradient"]
  np.testing.assert_allclose(line.get_xydata(), [[0, 30], [5, 80]])
  assert axis.get_xlabel() == "K zeroed"
