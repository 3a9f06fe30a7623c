"""The demo's report on rows made by hand: one conclusion that follows from the rows, one number for one thing."""

import re

import pytest
from handmade import GONE, facts_of, guess_rows, line_that_starts, passage_rows, reft_rows, rows_of, tuned

from configs import fig05_behaviour, quickstart
from experiments.reports import quickstart as report

FACTS = facts_of(quickstart.get_config("quick"))


def demo_rows(reft, control, *, had=1.0, left=0.1, c_tr=1.0, task="counter", **base):
  """Of one fine-tuned model and its control; 20 % is the guess, 80 % the threshold."""
  swept = {"task": task, "pretraining_steps": base.get("pretraining_steps")}
  rows = [*guess_rows(task), *(row | swept for row in passage_rows("scratch_ft", control))]
  rows += [row | swept | base for row in reft_rows(reft, c_tr=c_tr)]
  for metric, first, last in (("acc_pt", had, left), ("acc_ft", 0.0, 0.95)):
    kind = ("pretrain", {}) if base else ("compile", {"operand": "pt"})
    rows += rows_of(kind[0], metric, [first] * len(reft), task=task, c_te=0, **kind[1], **base)
    for step, value in ((0, first), (10, last)):
      rows += tuned([value] * len(reft), metric=metric, c_tr=c_tr, step=step, task=task, **base)
  return rows


def made(rows, facts=FACTS):
  return report.make(rows, {}, facts)


@pytest.mark.parametrize(
  ("reft", "control", "says", "when"),
  [
    ([10] * 3, [100] * 3, "Fine-tuning had left something", "after 10 steps; the model that never had O_PT after 100"),
    ([10] * 3, [None] * 3, "Fine-tuning had left something", "after 10 steps; the model that never had O_PT in 0 of 3"),
    ([10, 10, 20], [100, 100, 200], "do not settle", "after 10 steps"),
    ([10], [100], "do not settle", "after 10 steps"),  # one seed has no interval
    ([100] * 3, [10] * 3, "no sign", "after 100 steps; the model that never had O_PT after 10 steps"),
    ([20] * 3, [20] * 3, "no sign", "after 20 steps"),
    ([None] * 3, [None] * 3, "no sign", "in 0 of 3 runs within 200 steps"),
    ([0] * 3, [100] * 3, "cannot tell", "3 of 3 from the start"),
    ([GONE] * 3, [100] * 3, "cannot tell", "3 of 3 diverged"),
    ([10, 20, None], [200] * 3, "do not settle", "after 20 steps (in 2 of 3 runs)"),
    ([0, 10, 10], [100] * 3, "do not settle", "after 10 steps, 1 of 3 from the start"),
  ],
)
def test_the_conclusion_follows_from_the_rows(reft, control, says, when):
  verdict = made(demo_rows(reft, control)).verdict
  phrases = ("Fine-tuning had left something", "do not settle", "no sign", "cannot tell")
  assert [phrase for phrase in phrases if phrase in verdict] == [says]
  assert when in verdict


def test_a_model_that_had_no_o_pt_says_nothing():
  text = made(demo_rows([10] * 3, [100] * 3, had=0.7)).verdict
  assert "cannot tell" in text and "from 70.0 % to 10.0 %" in text
  assert text.endswith("Not judged: Acc. O_PT was below that before fine-tuning.\n")


def test_one_conclusion_is_about_all_models_and_names_those_that_are_judged():
  control = [100] * 3
  both = made(demo_rows([10] * 3, control) + reft_and_tuned([200] * 3, 0.0)).verdict
  assert "do not settle" in both and both.count("Counter, reFT at 0.001: ") == 1
  assert "\n- η_L 0.1, C_Tr 1: " in both and "\n- η_L 0.1, C_Tr 0: " in both
  lost = made(demo_rows([10] * 3, control) + reft_and_tuned([GONE] * 3, 0.0)).verdict
  assert "in every fine-tuned model that is judged than" in lost


def reft_and_tuned(reft, c_tr):
  return [row for row in demo_rows(reft, [], c_tr=c_tr) if row["stage"] in ("reft", "finetune")]


def test_every_number_of_the_conclusion_stands_in_the_table_beside_a_guess():
  found = made(demo_rows([20] * 3, [None] * 3, left=0.34))
  assert line_that_starts(found.table, "guess")[1:3] == ["20.0", "20.0"]
  assert line_that_starts(found.table, "compiled for O_PT")[1] == "100.0 [100.0, 100.0]"
  assert line_that_starts(found.table, "fine-tuned on O_FT, η_L 0.1, C_Tr 1")[1:3] == [
    "34.0 [34.0, 34.0]",
    "95.0 [95.0, 95.0]",
  ]
  assert line_that_starts(found.table, "... then on O_PT again")[3] == "after 20 steps"
  assert line_that_starts(found.table, "... then on O_PT")[3] == "in 0 of 3 runs within 200 steps"
  numbers = re.findall(r"\d+\.\d(?= %)", found.verdict)
  assert numbers == ["100.0", "34.0", "20.0"]


def test_the_figure_draws_both_trainings_with_one_colour_a_model():
  axes = made(demo_rows([20] * 3, [None] * 3, left=0.34)).figures["figure"].axes
  first, second = ({line.get_label(): line for line in axis.lines} for axis in axes)
  assert list(first["η_L 0.1, C_Tr 1"].get_ydata()) == pytest.approx([100, 34])
  assert list(second["η_L 0.1, C_Tr 1"].get_ydata()) == pytest.approx([30, 30, 90, 90, 90])
  assert list(second["never had O_PT (Scr. + FT)"].get_ydata()) == pytest.approx([30] * 5)
  assert first["η_L 0.1, C_Tr 1"].get_color() == second["η_L 0.1, C_Tr 1"].get_color()
  assert first["guess O_PT"].get_ydata()[0] == 20 and second["threshold"].get_ydata()[0] == 80


def test_the_report_holds_for_every_task_and_setting():
  maximum = made(demo_rows([10] * 3, [100] * 3, task="max_identifier"))
  both = made(demo_rows([10] * 3, [100] * 3, task="max_identifier") + demo_rows([100] * 3, [10] * 3))
  assert maximum.verdict.startswith("Max-identifier, reFT at 0.001: O_PT came back sooner")
  assert maximum.verdict in both.verdict and "Counter, reFT at 0.001: O_PT came back no sooner" in both.verdict
  assert len(both.figures["figure"].axes) == 4
  pcfg = {"setting": "pcfg", "task": "counting"}
  rows = [row | pcfg for row in demo_rows([10] * 3, [100] * 3, prior="low", pretraining_steps=800, mix=0.0)]
  found = made(rows, facts_of(fig05_behaviour.get_config("quick")))
  assert "Counting, reFT at 0.001, n_iters 800: O_PT came back sooner" in found.verdict
  assert line_that_starts(found.table, "pretrained, low prior")[1] == "100.0 [100.0, 100.0]"
