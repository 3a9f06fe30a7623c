"""Reports on stories, from rows made by hand: every answer of every claim, diverged seeds, nothing to revive."""

import csv
import math

import numpy as np
import pytest
from handmade import facts_of, line_that_starts, table_lines

from configs import fig11_twist, fig31_34_curves, fig35_38_probes, tab01_generation
from experiments.reports import stories, story_curves, story_overview, story_probes, story_table
from finetune_wrappers.reporting import paper_values
from finetune_wrappers.reporting.rows import make_row
from finetune_wrappers.types import InputError

STEPS = (0, 10, 30, 100)
F, M = "F, η_L 0.001", "F + Mix & Match, η_L 0.001"
CONTROL = "not in pretraining"
READS = ("Dialogue", "Twist", "control")
GUESS = {"Dialogue": 0.6, "Twist": 0.7, "control": 0.5}


def rows_of(stage, metric, values, *, step=100, **swept):
  """A row for each seed; None for a diverged run."""
  common = {"experiment": "e", "setting": "stories", "task": "stories", "stage": stage, "metric": metric, "step": step}
  return [make_row(**common, seed=s, value=v, diverged=v is None, **swept) for s, v in enumerate(values)]


def curve(stage, by_step, *, metric="generation_score", protocol="filter", reft=3e-4):
  """by_step: values of the seeds at each of STEPS."""
  swept = {} if stage == "scratch_ft" else {"protocol": protocol, "learning_rate": 1e-3}
  swept |= {} if stage == "finetune" else {"reft_learning_rate": reft, "reft_protocol": "only_twist"}
  pairs = zip(STEPS, by_step, strict=True)
  return [row for step, values in pairs for row in rows_of(stage, metric, values, step=step, **swept)]


def base(values, metric="generation_score"):
  return rows_of("pretrain", metric, values, reft_learning_rate=3e-3, reft_protocol="none")


def told(kind, by_judge, **swept):
  """by_judge: (share with the feature, share that could be read); no share where nothing could."""
  rows = []
  for reads, (share, readable) in by_judge.items():
    common = {"model": kind, "reads": reads, **swept}
    rows += rows_of("samples", "readable_share", [readable] * 3, **common)
    rows += rows_of("samples", "generation_score", [share] * 3, **common) if share is not None else []
  return rows


JUDGED = [
  *(
    rows_of("data", "stories", [n], step=0, protocol=p, done=done)[0]
    for p, done, n in (("none", "kept", 64), ("filter", "kept", 37), ("filter", "dropped: with Twist", 27))
  ),
  *rows_of("data", "guess_baseline", [0.7], step=0),
  *(rows_of("data", "acc_judge", [v], step=0, reads=r)[0] for r, v in (("classifier", 0.97), ("rule", 1.0))),
  *told("pretrain", {"classifier": (0.9, 1.0), "rule": (0.8, 0.5)}, reft_learning_rate=3e-3),
  *told("finetune", {"classifier": (0.1, 1.0), "rule": (None, 0.0)}, protocol="filter", learning_rate=1e-3),
]
UP = [[0.1] * 3, [0.9] * 3, [0.9] * 3, [0.9] * 3]
LATE = [[0.1] * 3, [0.1] * 3, [0.1] * 3, [0.9] * 3]
NEVER = [[0.1] * 3] * 4
THERE = [[0.9] * 3] * 4
GONE = [[None] * 3] * 4
BASE = [0.9, 0.9, 0.9]


def first(by_step, seeds=1):
  return [values[:seeds] for values in by_step]


def made_of(module, rows, preset="quick", arrays=None, **changed):
  config = {
    story_table: tab01_generation, story_curves: fig31_34_curves, story_probes: fig35_38_probes,
    story_overview: fig11_twist,
  }[module].get_config(preset)  # fmt: skip
  with config.unlocked():
    config.update_from_flattened_dict(changed)
  return module.make(rows, arrays or {}, facts_of(config))


def answer_of(made, claim):
  """(answer, evidence) of the claim that has these words."""
  (line,) = [line for line in table_lines(made.verdict) if claim in line[0]]
  return line[1], line[2]


def table_made(reft, control, start=BASE, tuned=LATE, **more):
  rows = [*base(start), *curve("finetune", tuned, **more), *curve("reft", reft, **more), *curve("scratch_ft", control)]
  return made_of(story_table, [*rows, *JUDGED])


@pytest.mark.parametrize(
  ("reft", "control", "answer", "evidence"),
  [
    (UP, LATE, "yes", "10 iterations against 100, ratio 10.0"),
    (UP, NEVER, "yes", "10 iterations against > 100 (0 of 3 runs), ratio at least 10.0"),
    (first(UP), first(LATE), "partly", "10 iterations against 100, ratio 10.0"),
    ([[0.1] * 3, [0.9, 0.1, 0.1], [0.9, 0.9, 0.1], [0.9] * 3], LATE, "partly", "30 iterations against 100, ratio 3.3"),
    (LATE, UP, "no", "100 iterations against 10, ratio 0.1"),
    (UP, UP, "no", "ratio 1.0"),
    (NEVER, UP, "no", "> 100 (0 of 3 runs) iterations against 10, ratio at most 0.1"),
    (NEVER, NEVER, "no", "ratio -"),
    (THERE, LATE, "not judged", "nothing to revive, generation score 90.0"),
    (GONE, LATE, "not judged", "diverged (3 of 3)"),
    (UP, GONE, "not judged", "diverged (3 of 3)"),
  ],
)
def test_the_score_is_back_sooner_than_the_control_learns_it(reft, control, answer, evidence):
  start = BASE[: len(reft[0])]
  made = table_made(reft, control, start, first(LATE, len(start)))
  found, text = answer_of(made, "sooner than the control")
  assert (found, evidence in text) == (answer, True), text
  assert "(72.0 %)" in made.verdict and "Acc. O_PT" not in made.markdown(facts_of(tab01_generation.get_config("quick")))


@pytest.mark.parametrize(
  ("reft", "control", "answer", "evidence"),
  [
    (UP, LATE, "yes", "at 30 (+80.0 [+80.0, +80.0] points), from 10.0 [10.0, 10.0] against 10.0"),
    (first(UP), first(LATE), "partly", "90.0 against 10.0 at 30 (+80.0 points)"),
    ([[0.1] * 3, [0.1] * 3, [0.1, 0.3, 0.5], [0.9] * 3], [[0.2] * 3] * 4, "partly", "+10.0 [-39.7, +59.7]"),
    (LATE, UP, "no", "-80.0"),
    (UP, UP, "no", "+0.0"),
    (THERE, LATE, "not judged", "nothing to revive"),
    (GONE, LATE, "not judged", "diverged (3 of 3)"),
    (UP, GONE, "not judged", "diverged (3 of 3)"),
    # The seed that has nothing to revive would make it +26.7; the others say that the control is ahead.
    ([[0.9, 0.1, 0.1]] * 4, [[0.1, 0.3, 0.3]] * 4, "no", "-20.0 [-20.0, -20.0]"),
  ],
)
def test_the_score_is_higher_early(reft, control, answer, evidence):
  start = BASE[: len(reft[0])]
  found, text = answer_of(table_made(reft, control, start, first(LATE, len(start))), "Within 30")
  assert (found, evidence in text) == (answer, True), text


def test_without_an_early_evaluation_nothing_is_said_of_it():
  rows = [*base(BASE), *curve("finetune", LATE), *curve("reft", UP), *curve("scratch_ft", LATE), *JUDGED]
  made = made_of(story_table, [row for row in rows if row["step"] not in (10, 30)])
  assert answer_of(made, "Within 30") == ("not judged", f"{F} (not judged): no evaluation within 30 iterations")


@pytest.mark.parametrize(
  ("start", "end", "answer", "evidence"),
  [
    (BASE, [0.1, 0.2, 0.3], "yes", "-70.0 ["),
    (BASE, [0.1, 0.8, 1.0], "partly", "-26.7 ["),
    ([0.9], [0.1], "partly", "90.0 to 10.0 (-80.0 points)"),
    (BASE, BASE, "no", "+0.0 ["),
    ([0.5] * 3, BASE, "no", "+40.0 ["),
    (BASE, [None, 0.1, 0.1], "yes", "diverged (1 of 3)"),
    (BASE, [None] * 3, "not judged", "diverged (3 of 3)"),
    ([None] * 3, [0.1] * 3, "not judged", "diverged (3 of 3)"),
    ([0.0] * 3, [0.0] * 3, "not judged", "models pretrained with the feature tell no story with it"),
  ],
)
def test_deleting_lowers_the_score(start, end, answer, evidence):
  n = len(start)
  found, text = answer_of(
    table_made(first(UP, n), first(LATE, n), start, [*first(LATE[:3], n), end]), "Deleting lowers"
  )
  assert (found, evidence in text) == (answer, True), text


@pytest.mark.parametrize(
  ("start", "reason"),
  [
    ([0.0] * 3, "models pretrained with the feature tell no story with it"),
    ([None] * 3, "every model pretrained with the feature diverged"),
  ],
)
def test_without_a_score_to_get_back_to_there_is_no_threshold_and_no_verdict(start, reason):
  made = table_made(UP, LATE, start)
  assert answer_of(made, "sooner than the control") == ("not judged", f"{F} (not judged): {reason}")
  assert answer_of(made, "Within 30") == ("not judged", f"{F} (not judged): {reason}")
  text = dict(made.sections)["Generation score"]
  assert f"{reason.capitalize()}, so there is no threshold." in text
  assert "nan" not in text + made.verdict and "0.0 %" not in text + made.verdict
  assert line_that_starts(text, F)[-2:] == ["-", "-"] and line_that_starts(text, CONTROL)[-2:] == ["-", "-"]


def test_one_model_of_two_is_partly_and_each_has_its_line_in_the_table():
  both = [curve("reft", UP), curve("reft", NEVER, protocol="mix_match"), curve("finetune", LATE)]
  made = made_of(story_table, [*base(BASE), *sum(both, []), *curve("scratch_ft", LATE), *JUDGED])
  assert answer_of(made, "sooner than the control")[0] == answer_of(made, "Within 30")[0] == "partly"
  text = dict(made.sections)["Generation score"]
  assert line_that_starts(text, F)[1:5] == ["10.0 [10.0, 10.0]", *["90.0 [90.0, 90.0]"] * 3]
  assert line_that_starts(text, F)[5] == "10" and line_that_starts(text, F)[6].startswith("10.0 [")
  assert line_that_starts(text, M)[6].startswith("at most 1.0 [")
  assert line_that_starts(text, M)[-2] == "> 100 (0 of 3 runs)" and line_that_starts(text, CONTROL)[-2:] == ["100", "-"]


def test_each_rate_of_reverse_fine_tuning_has_its_own_control():
  slow = [*curve("reft", LATE, reft=1e-5), *curve("scratch_ft", NEVER, reft=1e-5)]
  rows = [*base(BASE), *curve("finetune", LATE), *curve("reft", UP), *curve("scratch_ft", LATE), *slow, *JUDGED]
  made = made_of(story_table, rows)
  found, text = answer_of(made, "sooner than the control")
  assert f"{F}, reFT 0.0003 (yes): 10 iterations against 100, ratio 10.0" in text
  assert f"{F}, reFT 1e-05 (no): 100 iterations against > 100 (0 of 3 runs), ratio at least 1.0" in text
  assert found == "partly"
  labels = [line.get_label() for line in made.figures["figure"].axes[0].lines]
  assert len({*labels}) == len(labels) and f"{CONTROL}, reFT 1e-05" in labels


def test_what_judges_say_protocols_did_and_models_told_is_shown_without_empty_cells():
  name = "pretrain reft_learning_rate 0.003, reft_protocol none"
  arrays = {name: np.array(["Features: Twist\nStory:\nA *b* <i>|" + " word" * 40, "second"])}
  rows = [*base(BASE), *curve("finetune", LATE), *curve("reft", UP), *curve("scratch_ft", LATE), *JUDGED]
  made = made_of(story_table, rows, arrays=arrays)
  sections = dict(made.sections)
  text = sections["The judges on what models told"]
  cells = ["90.0 [90.0, 90.0]", "80.0 [80.0, 80.0]", "50.0 [50.0, 50.0]"]
  assert line_that_starts(text, "pretrained with it")[1:] == cells
  assert line_that_starts(text, f"{F}, after deletion")[1:] == ["10.0 [10.0, 10.0]", "-", "0.0 [0.0, 0.0]"]
  assert line_that_starts(sections["What protocols did"], "no protocol (`none`)")[1:] == ["64", "0"]
  assert line_that_starts(sections["What protocols did"], "F (`filter`)")[1:] == ["37", "27"]
  lines = sections["Samples"].split("**pretrained with it**\n\n")[1]
  assert all(line.startswith("    ") and len(line) < 110 for line in lines.strip("\n").split("\n"))
  assert "    A *b* <i>| word" in lines and "second" not in lines
  assert not [line for section in sections.values() for line in table_lines(section) if "" in line]


def test_a_table_of_scores_needs_prompts():
  limit = story_table.REPORT.limits["scores.prompts"]
  assert limit.fits(64) and not limit.fits(0)


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


def test_table_1_has_the_papers_numbers():
  with (paper_values.TABLES / "table1_tinystories_twist_percent.csv").open() as file:
    lines = list(csv.DictReader(file))
  found = paper_values.table1()
  assert len(found) == len(lines) == 7
  for row, line in zip(found, lines, strict=True):
    assert row["scores"] == [int(line[f"reft_{step}"]) / 100 for step in paper_values.TABLE1_STEPS]
  by_model = {row["model"]: row["scores"] for row in found}
  assert by_model["F, η_M"] == [0.44, 0.81, 0.81, 0.82] and by_model["F + Randomisation, η_S"][2] == 0.81
  assert by_model["F + Mix & Match, η_M"] == [0.31, 0.88, 0.5, 0.75] and by_model[CONTROL] == [0.12, 0.31, 0.44, 0.81]


@pytest.mark.parametrize(
  "line",
  ["filtering,eta_M,44,81,81", "filtering,eta_M,44,81,181,82", "sieving,eta_M,44,81,81,82", "filtering,0.1,1,2,3,4"],
)
def test_a_bad_line_of_table_1_is_named(tmp_path, monkeypatch, line):
  name = "table1_tinystories_twist_percent.csv"
  header = (paper_values.TABLES / name).read_text().splitlines()[0]
  (tmp_path / name).write_text(f"{header}\n{line}\n")
  monkeypatch.setattr(paper_values, "TABLES", tmp_path)
  with pytest.raises(InputError, match=r":2: not a line of Table 1: [^\n]+\Z"):
    paper_values.table1()
