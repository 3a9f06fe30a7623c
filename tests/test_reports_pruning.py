"""Reports on pruning from rows made by hand: lifts, single weights, collapse, and claims that hold or fail."""

import numpy as np
import pytest
from handmade import answers, facts_of, guess_rows, pruned, share_rows, single_rows, table_lines

from configs import quickstart as demo
from experiments.reports import histograms, pruning, single_weights


@pytest.fixture(scope="module")
def facts():
  config = demo.get_config("smoke")
  with config.unlocked():
    config.pruning.single_weights = 2
  return facts_of(config)


def curves_of(gradient, random, **more):
  """Curves by K of both scores; a value for all of two seeds, or one for each."""
  return [
    row
    for score, by_k in (("gradient", gradient), ("random", random))
    for row in pruned({k: v if isinstance(v, list) else [v] * 2 for k, v in by_k.items()}, score=score, **more)
  ]


@pytest.mark.parametrize(
  ("gradient", "random", "answer"),
  [
    ({0: 0.2, 1: 0.9, 2: 0.5}, {0: 0.2, 1: 0.2, 2: 0.2}, "yes"),
    ({0: 0.2, 1: 0.9, 2: 0.5}, {0: 0.2, 1: 0.85, 2: 0.2}, "no"),
    ({0: 0.6, 1: 0.5, 2: 0.3}, {0: 0.6, 1: 0.1, 2: 0.1}, "no"),
    ({0: 0.6, 1: 0.61, 2: 0.3}, {0: 0.6, 1: 0.1, 2: 0.1}, "no"),  # random falls; the score lifts nothing
    ({0: [0.36, 0.4], 1: [0.68, 0.72]}, {0: [0.36, 0.4], 1: [0.36, 0.4]}, "yes"),  # each seed against itself
    ({0: 0.2, 1: [0.2, 1.0]}, {0: 0.2, 1: 0.2}, "partly"),  # the interval reaches below
    ({0: [0.2], 1: [0.9]}, {0: [0.2], 1: [0.2]}, "partly"),  # one seed has no interval
    ({0: 0.95, 1: 1.0}, {0: 0.95, 1: 0.5}, "not judged"),  # nothing was lost
    ({0: 0.0, 1: 0.28}, {0: 0.0, 1: 0.0}, "no"),  # no more than the guess (30 %): one answer to all would do
  ],
)
def test_pruning_counts_only_if_the_score_lifts_more_than_random(gradient, random, answer):
  assert answers(pruning.curve_claims(curves_of(gradient, random), guess_rows("counter"))) == [answer]


@pytest.mark.parametrize(
  ("gradient", "answer"),
  [
    ({0: 0.2, 1: 0.25, 2: 0.1}, "yes"),
    ({0: 0.2, 1: 0.1, 2: 0.0}, "yes"),
    ({0: 0.2, 1: 0.1, 2: 0.4}, "no"),
    ({0: 0.2, 1: [0.0, 0.5]}, "partly"),  # 5 points on average; the interval reaches beyond 10
    ({0: 0.95, 1: 0.95}, "not judged"),
  ],
)
def test_nothing_comes_back_after_c_tr_0_if_no_k_lifts(gradient, answer):
  (claim,) = pruning.curve_claims(curves_of(gradient, gradient, c_tr=0.0), guess_rows("counter"))
  assert claim.answer == answer and "C_Tr = 0" in claim.text and "nothing back" in claim.text


def test_pruning_is_judged_by_scope_and_c_tr_and_without_diverged_seeds():
  rows = []
  for scope, rate, best in (("all", 0.1, 0.9), ("all", 0.01, 0.2), ("near_zero", 0.1, 0.9)):
    where = {"scope": scope, "learning_rate": rate}
    rows += curves_of({0: [0.19, 0.21, None], 1: [best, best, None]}, {0: [0.2] * 3, 1: [0.2] * 3}, **where)
    rows += curves_of({0: [0.0] * 3, 1: [1.0] * 3}, {0: [0.0] * 3, 1: [0.0] * 3}, c_tr=0.0, **where)
  claims = pruning.curve_claims(rows, guess_rows("counter"))
  assert answers(claims) == ["partly", "no", "yes", "no"]
  evidence = claims[2].evidence
  assert "20.0 [7.3, 32.7], diverged (1 of 3) to 90.0 [90.0, 90.0], diverged (1 of 3) at the best K = 1" in evidence
  assert "(+70.0 [+57.3, +82.7], diverged (1 of 3) points)" in evidence


def test_rates_that_diverged_are_named_and_decide_nothing():
  gone = {0: [None, None], 1: [None, None]}
  rows = curves_of(gone, gone)
  (claim,) = pruning.curve_claims(rows, guess_rows("counter"))
  assert claim.answer == "not judged" and claim.evidence == "η_L 0.1 (not judged): diverged (2 of 2)"
  rows += curves_of({0: 0.2, 1: 0.9}, {0: 0.2, 1: 0.2}, learning_rate=0.01)
  (claim,) = pruning.curve_claims(rows, guess_rows("counter"))
  assert claim.answer == "yes" and "η_L 0.1 (not judged): diverged (2 of 2)" in claim.evidence


def test_pruning_stands_beside_the_guess_of_its_own_strings(facts):
  rows = guess_rows("counter")
  for metric in ("acc_pt", "acc_ft"):
    rows += pruned({k: [0.1, 0.2] for k in (0, 1, 2)}, metric=metric) + single_rows([[0.1, 0.1]], metric=metric)
  made = pruning.make(rows, {}, facts)
  for name in ("figure", "figure_by_k"):
    lines = {line.get_label(): line.get_ydata() for line in made.figures[name].axes[0].lines}
    assert lines["guess O_PT"][0] == 30
  assert table_lines(dict(made.sections)["Guess baselines"])[2] == ["Counter", "C_Te = 0, pruning", "O_PT", "30.0"]
  assert len(table_lines(dict(made.sections)["Guess baselines"])) == 2 + 4


@pytest.mark.parametrize(
  ("first", "random", "answer"),
  [
    ([0.7, 0.71], 0.0, "yes"),
    ([0.74, 0.76], 0.72, "partly"),  # more than a random weight's, but the interval reaches below
    ([0.74, 0.76], 0.75, "no"),
    ([0.5, 0.75], 0.0, "partly"),
    ([0.4, 0.41], 0.0, "partly"),
    ([0.2, 0.8], 0.0, "no"),  # 50 points on average, from -100 to 100
    ([0.1, 0.1], 0.0, "no"),
  ],
)
def test_a_single_weight_is_judged_by_the_first_ranked_beside_a_random_one(facts, first, random, answer):
  rows = single_rows([first, [0.79, 0.79]], random=(random, random)) + curves_of({0: 0.1}, {}, c_tr=0.0)
  (claim,) = single_weights.single_weights(rows, facts).claims
  assert claim.answer == answer and claim.evidence.startswith(f"η_L 0.1 ({answer}): from 15.0")
  assert f"random {100 * random:+.1f}" in claim.evidence
  assert f"best on the test set: W2 +79.0 [+79.0, +79.0], random draw {100 * random:+.1f}" in claim.evidence


def test_single_weights_of_models_without_room_or_that_diverged_are_named(facts):
  rows = single_rows([[0.7, 0.7]])
  rows += single_rows([[0.1, 0.1]], base=(0.5, 0.5), learning_rate=0.01)
  rows += single_rows([[0.1, 0.1]], base=(None, None), learning_rate=0.001)
  rows += single_rows([[0.7, 0.7, 0.7]], base=(0.1, 0.2, None), learning_rate=0.0001)
  part = single_weights.single_weights(rows, facts)
  (claim,) = part.claims
  large, middle, small, smallest = claim.evidence.split("; η")
  assert claim.answer == "yes" and large.startswith("η_L 0.1 (yes)")
  assert middle.startswith("_M 0.01 (not judged): Acc. O_PT 50.0 [50.0, 50.0] before pruning leaves no room")
  assert small == "_S 0.001 (not judged): diverged (2 of 2)"
  assert smallest.startswith("_VS 0.0001 (yes)") and "W1 +70.0 [+70.0, +70.0], diverged (1 of 3)" in smallest
  only = single_weights.single_weights(single_rows([[0.1, 0.1]], base=(None, None)), facts)
  assert answers(only.claims) == ["not judged"]


def test_one_seed_can_lift_only_partly(facts):
  part = single_weights.single_weights(single_rows([[0.7]], base=(0.1,)), facts)
  assert answers(part.claims) == ["partly"]


def test_single_weights_are_told_by_how_much_they_lift(facts):
  rows = single_rows([[0.0, 0.05], [0.65, 0.75]], random=(0.01, 0.04))
  rows += single_rows([[0.3, 0.1], [-0.1, -0.2]], base=(0.5, 0.6), metric="acc_ft")
  other = single_rows([[0.8, 0.8]], scope="all") + pruned({0: [0.1, 0.2], 1: [0.3, 0.3]}, unit="neuron", score="random")
  part = single_weights.single_weights([*rows, *other], facts)
  first, second, random, best = table_lines(part.section[1])[2:]
  assert first[3:] == ["W1", "B1 W_V[one,1] (2)", "+2.5 [-29.3, +34.3]", "+20.0 [-100.0, +100.0]"]
  assert second[5:] == ["+70.0 [+6.5, +100.0]", "-15.0 [-78.5, +48.5]"]
  assert random[3:6] == ["random weight, mean of draws", "", "+1.0 [+1.0, +1.0]"]
  assert best[3:6] == ["random weight, best draw", "", "+4.0 [+4.0, +4.0]"]
  heights = [bar.get_height() for bar in part.figure.axes[0].patches]
  assert heights == pytest.approx([15, 17.5, 85, 16, 55, 75, 40, 55])


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
  before = pruned({0: [0.1] * len(by_k[1])}, score="random")
  part = histograms.histograms([*share_rows(by_k), *before], facts)
  assert answers(part.claims) == [answer]
  means = [f"{100 * np.mean([max(s, 1 - s) for s in shares]):.1f}" for shares in by_k.values()]
  assert [cell.split(" [")[0] for cell in table_lines(part.section[1])[2][3:]] == means


def test_a_collapse_is_not_judged_for_a_rate_that_diverged(facts):
  rows = share_rows({0: [0.9, 0.9], 1: [0.5, 0.5]}) + pruned({0: [0.1, 0.1]}, score="random")
  rows += pruned({0: [None, None]}, score="random", learning_rate=0.01)
  (claim,) = histograms.histograms(rows, facts).claims
  assert claim.answer == "yes" and "η_M 0.01 (not judged): diverged (2 of 2)" in claim.evidence


def test_the_figure_by_k_shows_the_first_unit_and_scope_of_several():
  rows = guess_rows("counter")
  for metric in ("acc_pt", "acc_ft"):
    for score in ("gradient", "random"):
      rows += pruned({0: [0.2, 0.4], 5: [0.7, 0.9]}, metric=metric, score=score)
      rows += pruned({0: [0.0] * 2, 5: [0.0] * 2}, metric=metric, score=score, unit="neuron")
      rows += pruned({0: [0.0] * 2, 5: [0.0] * 2}, metric=metric, score=score, scope="all")
  (axis,) = pruning.make(rows, {}, facts_of(demo.get_config("smoke"))).figures["figure"].axes
  line = {line.get_label(): line for line in axis.lines}["O_PT, gradient"]
  np.testing.assert_allclose(line.get_xydata(), [[0, 30], [5, 80]])
  assert axis.get_xlabel() == "K zeroed"


def test_curves_up_to_100_show_iterative_pruning_and_the_k_that_were_measured():
  ks = (0, 5, 12, 20, 50, 100)
  rows = guess_rows("counter")
  for score, height in (("gradient", 0.3), ("gradient_iterative", 0.6), ("random", 0.1)):
    for metric in ("acc_pt", "acc_ft"):
      rows += pruned({k: [height] * 2 for k in ks}, score=score, metric=metric)
  made = pruning.make(rows, {}, facts_of(demo.get_config("smoke")))
  header, _, *lines = table_lines(dict(made.sections)["By K"])
  assert header[-6:] == ["K = 0", "K = 5", "K = 12", "K = 20", "K = 50", "K = 100"]
  assert [line[-1].split(" ")[0] for line in lines if line[4] == "gradient_iterative"] == ["60.0", "60.0"]
  labels = [line.get_label() for line in made.figures["figure"].axes[0].lines]
  assert {"O_PT, gradient", "O_PT, gradient, iterative", "O_PT, random"} <= set(labels)


def test_a_curve_of_only_k_0_and_1_is_not_drawn_beside_single_weights(facts):
  rows = guess_rows("counter")
  for metric in ("acc_pt", "acc_ft"):
    rows += pruned({0: [0.1, 0.2], 1: [0.1, 0.2]}, metric=metric) + single_rows([[0.1, 0.1]], metric=metric)
  assert set(pruning.make(rows, {}, facts).figures) == {"figure"}


def test_models_that_diverged_say_so_in_the_figure(facts):
  rows = guess_rows("counter")
  for metric in ("acc_pt", "acc_ft"):
    rows += pruned({k: [None, None] for k in (0, 1, 2)}, metric=metric)
  (axis,) = pruning.make(rows, {}, facts).figures["figure_by_k"].axes
  assert axis.get_title(loc="left").endswith("C_Tr 1, diverged") and [x.get_label() for x in axis.lines] == [
    "guess O_PT"
  ]
