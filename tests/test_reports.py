"""Reports on rows made by hand: the paper's table, revival, readings, maps, and every report's figure and text."""

import csv
import importlib
import itertools

import numpy as np
import pytest
from handmade import (
  NAMES,
  answers,
  attention_rows,
  facts_of,
  guess_rows,
  line_that_starts,
  passage_rows,
  pruned,
  reft_rows,
  rows_of,
  share_rows,
  single_rows,
  table3_rows,
  table_lines,
  tuned,
)
from matplotlib.figure import Figure

from configs import quickstart as demo
from experiments.reports import behaviour, maps, readings, revival
from finetune_wrappers.reporting.claims import Claim, markdown_claims
from finetune_wrappers.reporting.paper_values import TABLES
from finetune_wrappers.types import InputError


@pytest.fixture(scope="module")
def facts():
  return facts_of(demo.get_config("smoke"))


def paper_value(task, rate, c_tr, c_te, metric):
  with (TABLES / "table3_tracr_finetuning.csv").open() as file:
    for line in csv.DictReader(file):
      if (line["task"], float(line["learning_rate"]), float(line["c_tr"])) == (task, rate, c_tr):
        return float(line[f"cte{c_te}_{metric}"]) / 100
  raise LookupError


def test_mean_absolute_difference_to_table_3_is_the_hand_computed_one_and_leaves_diverged_lanes_out(facts):
  def values(c_tr, c_te, metric):
    mean = 0.1 + 0.3 * c_tr + 0.2 * c_te + (0.25 if metric == "acc_ft" else 0.0)
    return [mean - 0.05, None, mean + 0.05]

  rows = [*table3_rows(values), *guess_rows("counter"), *tuned([1.0] * 3, step=0)]
  made = behaviour.make(rows, {}, facts)
  cells = list(itertools.product((0.0, 1.0), (0, 1), ("acc_pt", "acc_ft")))
  expected = np.mean([abs(np.mean(values(*c)[::2]) - paper_value("counter", 0.1, *c)) for c in cells])
  text = made.markdown(facts)
  assert f"over 8 cells: {100 * expected:.1f} percentage points (0 cells only here, 216 only in the paper)" in text
  assert f"Counter: {100 * expected:.1f} points over 8 cells." in text
  line = line_that_starts(text, "counter", "0.1", "1.0", "0")
  assert line[4].startswith("40.0 [") and line[4].endswith("diverged (1 of 3)") and line[5:7] == ["35.8", "+4.2"]
  assert line[7].startswith("65.0 [") and line[8:] == ["0.7", "+64.3"]


def test_figure_of_table_3_has_c_tr_along_and_percent_up(facts):
  rows = [*table3_rows(lambda c_tr, c_te, metric: [0.1 + 0.3 * c_tr + 0.2 * c_te + 0.25 * (metric == "acc_ft")] * 2)]
  axes = behaviour.make([*rows, *guess_rows("counter")], {}, facts).figures["figure"].axes
  expected = [
    ("Counter, C_Te = 0", 10),
    ("Counter, C_Te = 0", 35),
    ("Counter, C_Te = 1", 30),
    ("Counter, C_Te = 1", 55),
  ]
  for axis, (title, at_0), label in zip(axes, expected, ["Acc. O_PT, %", "Acc. O_FT, %"] * 2, strict=True):
    assert (axis.get_title(loc="left"), axis.get_xlabel(), axis.get_ylabel()) == (title, "C_Tr", label)
    line = {line.get_label(): line for line in axis.lines}["η_L 0.1"]
    np.testing.assert_allclose(line.get_xydata(), [[0, at_0], [1, at_0 + 30]])


@pytest.mark.parametrize(
  ("learned", "where", "elsewhere", "expected"),
  [
    ({0.1: 0.95, 0.01: 0.9}, {0.1: 0.9, 0.01: 0.7}, {0.1: 0.5, 0.01: 0.1}, ["yes", "yes"]),
    ({0.1: 0.95, 0.01: 0.8}, {0.1: 0.9, 0.01: 0.9}, {0.1: 0.5, 0.01: 0.6}, ["partly", "partly"]),
    ({0.1: 0.85, 0.01: 0.8}, {0.1: 0.9, 0.01: 0.6}, {0.1: 0.9, 0.01: 0.1}, ["no", "no"]),
    ({0.1: None, 0.01: None}, {0.1: None, 0.01: None}, {0.1: None, 0.01: None}, ["no", "no"]),
  ],
)
def test_claims_of_table_3_are_judged_at_every_rate(facts, learned, where, elsewhere, expected):
  rows = guess_rows("counter")
  for rate in learned:
    rows += tuned([learned[rate]] * 2, rate=rate, c_tr=0.0) + tuned([where[rate]] * 2, rate=rate, c_te=1)
    rows += tuned([elsewhere[rate]] * 2, rate=rate)
  lines = table_lines(behaviour.make(rows, {}, facts).short)[2:]
  assert [line[1] for line in lines] == expected
  assert all("η_L 0.1" in line[2] and "η_M 0.01" in line[2] for line in lines)


@pytest.mark.parametrize(
  ("reft", "control", "answer", "median", "ratio"),
  [
    ([10, 10, 20], [100, 100, 200], "yes", "10", "10.0"),
    ([100, 100, 200], [10, 10, 20], "no", "100", "0.1"),
    ([20, 20, 20], [20, 20, 20], "no", "20", "1.0"),
    ([10, 20, None], [200, 200, 200], "partly", "20 (2 of 3 runs)", "10.0"),
    ([10, 10, 10], [None, None, None], "yes", "10", "at least 20.0"),
    ([None, None, None], [10, 10, 10], "no", "> 200 (0 of 3 runs)", "at most 0.1"),
    ([None, None, None], [None, None, None], "no", "> 200 (0 of 3 runs)", "-"),
    ([-10, -10, None], [100, 100, 100], "no", "> 10 (0 of 3 runs)", "at most 10.0"),
  ],
)
def test_revival_compares_medians_with_runs_that_never_get_there(reft, control, answer, median, ratio):
  rows = reft_rows(reft) + passage_rows("scratch_ft", control)
  lines, claim = revival.compare("counter", 0.001, rows, 0.8)
  assert claim.answer == answer
  assert lines[0][:3] == ("Counter", "0.001", "η_L 0.1, C_Tr 1") and lines[1][2] == "Scr. + FT"
  assert lines[0][5] == median and lines[0][6].split(" [")[0] == ratio
  assert median in claim.evidence and ratio in claim.evidence


def test_revival_is_partly_so_if_one_fine_tuned_model_is_slower():
  rows = reft_rows([10, 10]) + reft_rows([200, 200], c_tr=0.0) + passage_rows("scratch_ft", [100, 100])
  assert revival.compare("counter", 0.001, rows, 0.8)[1].answer == "partly"


def test_readings_mark_diverged_runs_and_count_the_points_to_the_paper(facts):
  rows = []
  for reading, pt, ft in (("default", 0.3, 0.5), ("no clip", None, None)):
    for metric, value in (("acc_pt", pt), ("acc_ft", ft)):
      for c_te in (0, 1):
        rows += tuned([value], c_te=c_te, metric=metric, reading=reading)
        rows += tuned([0.77], c_te=c_te, metric=metric, reading=reading, step=0)
  points = np.mean([abs(0.3 - 0.358), abs(0.5 - 0.007), abs(0.3 - 0.0), abs(0.5 - 1.0)])
  made = readings.make(rows, {}, facts)
  assert line_that_starts(made.short, "default") == ["default", "77", "30.0 / 50.0", f"{100 * points:.1f}"]
  assert line_that_starts(made.short, "no clip")[:3] == ["no clip", "77", "x / x"]


@pytest.mark.parametrize(
  ("after", "expected"),
  [
    ({1.0: (0.65, 0.1), 0.0: (0.0, 0.25)}, ["yes", "yes"]),
    ({1.0: (0.4, 0.1), 0.0: (0.0, 0.15)}, ["partly", "partly"]),
    ({1.0: (0.2, 0.9), 0.0: (0.9, 0.1)}, ["no", "no"]),
  ],
)
@pytest.mark.parametrize("task", NAMES)
def test_attention_is_compared_with_the_compiled_models(task, after, expected):
  models = {("compile", None): (0.8, 0.1), **{("finetune", c_tr): shares for c_tr, shares in after.items()}}
  rows = attention_rows(task, models, 2)
  elsewhere = [{**row, "block": 0, "value": 0.8} for row in rows]
  assert answers(maps._claims([*rows, *elsewhere], task)) == expected


def all_rows(task, seeds):
  """Rows that every report finds something in."""
  tuned_rows = [{**row, "reading": "default"} for row in table3_rows(lambda *_: [0.4] * seeds, task)]
  rows = [*guess_rows(task), *tuned_rows, *({**row, "step": 0} for row in tuned_rows)]
  curves = [*reft_rows([10] * seeds), *passage_rows("scratch_ft", [100] * seeds)]
  for score in ("gradient", "random"):
    curves += pruned({0: [0.2] * seeds, 1: [0.9] * seeds}, score=score)
    curves += pruned({0: [0.9] * seeds, 1: [0.2] * seeds}, score=score, metric="acc_ft")
  singles = [row for m in ("acc_pt", "acc_ft") for row in single_rows([[0.5] * seeds], [0.2] * seeds, metric=m)]
  curves += [row for row in singles if row["stage"] == "prune_single"]
  curves += share_rows({0: [0.5] * seeds, 1: [0.6] * seeds})
  curves += rows_of("data", "label_share", [1.0], label="1", c_te=0, operand="pt")
  models = {("compile", None): (0.8, 0.1), ("finetune", 1.0): (0.7, 0.2)}
  return [*rows, *({**row, "task": task} for row in curves), *attention_rows(task, models, seeds)]


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("report", ["behaviour", "revival", "pruning", "readings", "maps", "quickstart"])
def test_every_report_has_a_figure_and_names_its_tasks(facts, report, seeds):
  tasks = ["counter"] if report == "quickstart" else list(NAMES)
  maps_of = {f"{task}/compiled/abcdef/attention": np.full((3, 9, 9), 1 / 9) for task in tasks}
  made = importlib.import_module(f"experiments.reports.{report}").make(
    [row for task in tasks for row in all_rows(task, seeds)], maps_of, facts
  )
  assert isinstance(made.figures["figure"], Figure) and made.figures["figure"].axes
  text = made.markdown(facts)
  assert all(NAMES[task] in text for task in tasks) and made.short.strip() and "nan" not in text.lower()
  assert all(f"![{name}]({name}.png)" in text for name in made.figures) and "c0ffee" in text


def test_attention_maps_are_drawn_attending_downwards_by_block(facts):
  drawn = np.random.default_rng(0).random((3, 9, 9))
  rows = attention_rows("counter", {("compile", None): (0.8, 0.1)}, 1)
  axes = maps.make(rows, {"counter/compiled/abcdef/attention": drawn}, facts).figures["figure"].axes[:3]
  for block, axis in enumerate(axes):
    np.testing.assert_array_equal(axis.images[0].get_array(), drawn[block])
    assert axis.get_title(loc="left") == f"compiled\nblock {block}"
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("attending", "attended")
    assert axis.images[0].origin == "upper"


def test_a_claim_needs_a_known_answer_a_text_and_evidence():
  table = markdown_claims([Claim("it | holds", "yes", "3 of 3"), Claim("it fails", "no", "0 of 3")])
  assert table_lines(table)[2:] == [["it \\| holds", "yes", "3 of 3"], ["it fails", "no", "0 of 3"]]
  for bad in (("it holds", "maybe", "3 of 3"), (" ", "yes", "3 of 3"), ("it holds", "yes", "")):
    with pytest.raises(InputError, match=r"\A[^\n]+\Z"):
      Claim(*bad)
