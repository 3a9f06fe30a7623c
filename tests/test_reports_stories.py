"""The table of generation scores, from rows made by hand: every answer, diverged seeds, nothing to revive."""

import numpy as np
import pytest
from handmade import facts_of, line_that_starts, table_lines
from stories_by_hand import (
  BASE,
  CONTROL,
  GONE,
  LATE,
  NEVER,
  THERE,
  UP,
  F,
  M,
  answer_of,
  base,
  curve,
  first,
  made_of,
  rows_of,
)

from configs import tab01_generation
from experiments.reports import story_table


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
  # Four fifths of the way from the control's 10 % to 90 %; where the control diverged, from 0.
  assert ("(72.0 %)" if control is GONE else "(74.0 %)") in made.verdict and "Acc. O_PT" not in made.markdown(
    facts_of(tab01_generation.get_config("quick"))
  )


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


def test_a_control_that_the_judge_takes_for_the_feature_is_not_there_from_the_start():
  taken = [[0.25] * 3, [0.25] * 3, [0.25] * 3, [0.3] * 3]  # 0.8 * 0.3 is less than 0.25
  found, text = answer_of(table_made([[0.1] * 3, [0.3] * 3, [0.3] * 3, [0.3] * 3], taken, [0.3] * 3), "sooner than")
  assert (found, "10 iterations against 100, ratio 10.0" in text) == ("yes", True), text


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
    ([0.0] * 3, "models pretrained with the feature tell no more stories with it than the control"),
    ([0.1] * 3, "models pretrained with the feature tell no more stories with it than the control"),
    ([None] * 3, "every model pretrained with the feature diverged"),
  ],
)
def test_without_a_score_to_get_back_to_there_is_no_threshold_and_no_verdict(start, reason):
  made = table_made(UP, LATE, start)
  assert answer_of(made, "sooner than the control") == ("not judged", f"{F} (not judged): {reason}")
  assert answer_of(made, "Within 30") == ("not judged", f"{F} (not judged): {reason}")
  text = dict(made.sections)["Generation score"]
  assert f"{reason.capitalize()}, so there is no threshold." in text
  assert "nan" not in text + made.verdict and "(0.0 %)" not in text + made.verdict
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


@pytest.mark.parametrize(("right", "answer"), [(0.97, "yes"), (0.92, "yes"), (0.91, "no"), (0.5, "no")])
def test_a_judge_that_is_worse_than_the_papers_is_told(right, answer):
  rows = [*base(BASE), *curve("finetune", LATE), *curve("reft", UP), *curve("scratch_ft", LATE), *JUDGED]
  rows = [
    {**row, "value": right} if row["metric"] == "acc_judge" and row["reads"] == "classifier" else row for row in rows
  ]
  found, text = answer_of(made_of(story_table, rows), "as good as the paper's judge")
  assert found == answer and f"{100 * right:.1f} %" in text and "70.0 %" in text
