"""Losses and probes of stories, from rows made by hand: every answer of every claim, diverged seeds, figures."""

import math

import pytest
from handmade import line_that_starts, table_lines
from stories_by_hand import BASE, CONTROL, GONE, LATE, UP, F, answer_of, base, curve, first, made_of, rows_of

from experiments.reports import stories, story_curves, story_overview, story_probes

READS = ("Dialogue", "Twist", "control")
GUESS = {"Dialogue": 0.6, "Twist": 0.7, "control": 0.5}


def losses(stage, by_step, **more):
  return curve(stage, by_step, metric="loss_feature", **more)


FLAT = [[2.0, 2.1, 2.2]] * 4
HIGH = [[3.0, 3.1, 3.2]] * 4


@pytest.mark.parametrize(
  ("reft", "control", "answer", "evidence"),
  [
    (FLAT, HIGH, "yes", "+1.000 [+1.000, +1.000] at 10, +1.000 [+1.000, +1.000] at 100"),
    (first(FLAT), first(HIGH), "partly", "+1.000 at 10, +1.000 at 100"),
    (FLAT, [HIGH[0], HIGH[0], [1.5] * 3, HIGH[0]], "partly", "-0.600 [-0.848, -0.352] at 30"),
    (HIGH, FLAT, "no", "-1.000"),
    (FLAT, FLAT, "no", "+0.000"),
    (FLAT, GONE, "not judged", "diverged (3 of 3) at 10"),
    (GONE, HIGH, "not judged", "diverged (3 of 3) at 10"),
    (FLAT, [*HIGH[:3], [None] * 3], "partly", "diverged (3 of 3) at 100"),
    (HIGH, [*FLAT[:3], [None] * 3], "no", "diverged (3 of 3) at 100"),
    ([*FLAT[:3], [2.0, None, 2.2]], HIGH, "yes", "diverged (1 of 3) at 100"),
  ],
)
def test_the_loss_is_below_the_controls_all_along(reft, control, answer, evidence):
  claim = story_curves.below_claim(losses("reft", reft) + losses("scratch_ft", control))
  assert (claim.answer, evidence in claim.evidence) == (answer, True), claim.evidence
  assert "nan" not in claim.evidence


@pytest.mark.parametrize(
  ("by_step", "answer", "evidence"),
  [
    ([*FLAT[:3], [2.5, 2.7, 2.6]], "yes", "2.100 ["),
    ([*FLAT[:3], [2.0, 2.1, 2.8]], "partly", "(+0.200 [-0.661, +1.061])"),
    (first([*FLAT[:3], HIGH[0]]), "partly", "2.000 to 3.000 (+1.000)"),
    (FLAT, "no", "(+0.000 [+0.000, +0.000])"),
    ([*FLAT[:3], [1.5, 1.6, 1.7]], "no", "(-0.500"),
    ([*FLAT[:3], [None] * 3], "not judged", "diverged (3 of 3)"),
  ],
)
def test_deleting_raises_the_loss(by_step, answer, evidence):
  claim = story_curves.raised_claim(losses("finetune", by_step))
  assert (claim.answer, evidence in claim.evidence) == (answer, True), claim.evidence


def all_curves():
  rows = [*base(BASE), *base([1.0] * 3, "loss_feature")]
  for metric, low, high in (("generation_score", UP, LATE), ("loss_feature", FLAT, HIGH), ("loss_other", FLAT, FLAT)):
    rows += curve("finetune", high, metric=metric) + curve("reft", low, metric=metric)
    rows += curve("scratch_ft", high, metric=metric)
  return rows


def test_curves_have_a_panel_for_each_metric_and_percent_only_for_the_score():
  made = made_of(story_curves, all_curves())
  axes = made.figures["figure"].axes
  titles = [axis.get_title(loc="left") or axis.get_title() for axis in axes]
  about = ("stories with Twist", "stories without Twist", "told stories")
  assert titles == [f"{kind}: {what}" for kind in ("deleting", "reviving") for what in about]
  lines = {line.get_label(): line.get_ydata().tolist() for line in axes[5].lines}
  assert lines[F] == pytest.approx([10, 90, 90, 90]) and lines[CONTROL] == pytest.approx([10, 10, 10, 90])
  lines = {line.get_label(): line.get_ydata().tolist() for line in axes[3].lines}
  assert lines[CONTROL] == pytest.approx([3.1] * 4)
  text = dict(made.sections)["Reviving"]
  assert line_that_starts(text, "generation score, told stories", CONTROL)[2:4] == ["10.0 [10.0, 10.0]"] * 2
  assert table_lines(text)[0] == ["what", "model", "iteration 0", "iteration 30", "iteration 100"]
  unscored = made_of(story_curves, [row for row in all_curves() if row["metric"] != "generation_score"])
  assert len(unscored.figures["figure"].axes) == 4


def probed(model, by_reads, *, blocks=(1, 2), **swept):
  """by_reads: accuracies of the seeds at the last block; at those before it always as a guess."""
  rows = []
  for reads, values in by_reads.items():
    common = {"model": model, "reads": reads, **swept}
    rows += rows_of("probe", "guess_baseline", [None if v is None else GUESS[reads] for v in values], **common)
    for block in blocks:
      last = block == blocks[-1]
      own = values if last else [None if v is None else GUESS[reads] for v in values]
      rows += rows_of("probe", "acc_probe", own, block=block, **common)
  return rows


def probe_rows(upper, own, lower, reads="Twist"):
  tuned = {"protocol": "filter", "learning_rate": 1e-3}
  rest = {"Dialogue": [0.95] * len(upper), "control": [0.55] * len(upper)}
  models = (("pretrain", upper, {}), ("finetune", own, tuned), ("never", lower, {}))
  return [row for kind, values, swept in models for row in probed(kind, {**rest, reads: values}, **swept)]


HIGHS, LOWS = [0.95, 0.96, 0.97], [0.75, 0.76, 0.77]


@pytest.mark.parametrize(
  ("upper", "own", "lower", "answer", "evidence"),
  [
    (HIGHS, [0.93, 0.94, 0.95], LOWS, "yes", "+8.0 [+8.0, +8.0] points from half-way"),
    (HIGHS, [0.80, 0.90, 0.97], LOWS, "partly", "+3.0 ["),
    ([0.95], [0.93], [0.75], "partly", "which are +20.0 points apart; +8.0 points from half-way"),
    # Above half-way in every seed, but it is not certain that the references are apart.
    ([0.70, 0.80, 0.99], [0.96, 0.965, 0.97], [0.75, 0.76, 0.77], "partly", "+7.0 ["),
    (HIGHS, [0.78, 0.79, 0.80], LOWS, "no", "-7.0 [-7.0, -7.0] points from half-way"),
    (HIGHS, HIGHS, [0.94, 0.95, 0.96], "not judged", "+1.0 [+1.0, +1.0] points apart: more than 2 are needed"),
    (LOWS, HIGHS, HIGHS, "not judged", "-20.0 [-20.0, -20.0] points apart"),
    ([None] * 3, HIGHS, LOWS, "not judged", "diverged (3 of 3)"),
    (HIGHS, [None] * 3, LOWS, "not judged", "diverged (3 of 3)"),
    ([None, 0.96, 0.97], [0.93, 0.94, 0.95], LOWS, "yes", "diverged (1 of 3)"),
  ],
)
def test_probes_of_deleted_models_are_nearer_to_the_upper_reference(upper, own, lower, answer, evidence):
  claim = story_probes.kept_claim(probe_rows(upper, own, lower), "Twist")
  assert (claim.answer, evidence in claim.evidence) == (answer, True), claim.evidence
  assert "nan" not in claim.evidence


@pytest.mark.parametrize(
  ("twist", "control", "answer", "evidence"),
  [
    # A guess errs 30 times in 100 on Twist, 50 times on the control label.
    ([0.97, 0.97, 0.97], [0.60] * 3, "yes", "+70.0 [+70.0, +70.0] points more of a guess's errors avoided"),
    # Perfect at a label that a guess knows well is better than 85 % at a coin's, though nearer to its guess.
    ([1.0, 1.0, 1.0], [0.85] * 3, "yes", "+30.0"),
    ([0.97], [0.60], "partly", "Twist 97.0 (guess 70.0), control 60.0 (guess 50.0); +70.0 points"),
    ([0.70, 0.80, 1.0], [0.60] * 3, "partly", "+24.4 ["),
    ([0.70, 0.71, 0.72], [0.85] * 3, "no", "-66.7 ["),
    ([0.85] * 3, [0.75] * 3, "no", "+0.0 ["),
    ([None] * 3, [0.6] * 3, "not judged", "diverged (3 of 3)"),
  ],
)
def test_features_are_read_better_than_the_control_label(twist, control, answer, evidence):
  claim = story_probes.control_claim(probed("pretrain", {"Twist": twist, "control": control}))
  assert (claim.answer, evidence in claim.evidence) == (answer, True), claim.evidence
  assert "nan" not in claim.evidence


def test_a_label_that_a_guess_always_gets_is_not_judged(monkeypatch):
  monkeypatch.setitem(GUESS, "Twist", 1.0)
  claim = story_probes.control_claim(probed("pretrain", {"Twist": [1.0] * 3, "control": [0.6] * 3}))
  assert claim.answer == "not judged" and "(guess 100.0)" in claim.evidence


def test_probes_have_a_panel_for_each_feature_and_lines_that_can_be_told_apart():
  rows = probe_rows([None, 0.96, 0.97], [0.93, 0.94, 0.95], LOWS)
  made = made_of(story_probes, rows)
  axes = made.figures["figure"].axes
  assert [axis.get_title(loc="left") or axis.get_title() for axis in axes] == list(READS)
  lines = {line.get_label(): line for line in axes[1].lines}
  assert lines[F].get_ydata() == pytest.approx([70, 94]) and lines[F].get_xdata().tolist() == [1, 2]
  assert set(lines["guess"].get_ydata()) == {70.0}  # though the first model diverged
  looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines.values()}
  assert len(looks) == len(lines) == 4
  assert lines["pretrained with it"].get_marker() != lines["pretrained without it"].get_marker()
  text = dict(made.sections)["At the last block"]
  assert line_that_starts(text, "guess")[1:] == ["60.0", "70.0", "50.0"]
  assert line_that_starts(text, "pretrained with it")[2].endswith("diverged (1 of 3)")


def test_the_overview_has_the_claims_of_both_and_what_was_deleted():
  made = made_of(story_overview, all_curves() + probe_rows(HIGHS, [0.93, 0.94, 0.95], LOWS))
  expected = {
    "Deleting raises": "no",
    "below the control's": "yes",
    "nearer to the upper": "yes",
    "means nothing": "yes",
  }
  assert {claim: answer_of(made, claim)[0] for claim in expected} == expected
  assert {*made.figures} == {"figure", "probes"} and len(made.figures["probes"].axes) == 2


def test_what_is_no_protocol_is_the_control_and_losses_are_no_percentages():
  (name, _), *rest = stories.models_of(curve("scratch_ft", LATE), "scratch_ft")
  assert name == CONTROL and not rest
  assert stories.number_cell(losses("reft", FLAT)[:3]) == "2.100 [1.852, 2.348]" and stories.number_cell([]) == "-"
  half = 4.302652729911275 * 0.1 / math.sqrt(3)  # Student's t with 2 degrees of freedom
  assert stories.number_cell(losses("reft", FLAT)[:3], 2) == f"2.10 [{2.1 - half:.2f}, {2.1 + half:.2f}]"
