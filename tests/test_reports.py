"""Reports on rows made by hand: the paper's table, readings, maps, and every report's figure and text."""

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

from configs import fig09_reft, tab03_behaviour
from experiments.reports import behaviour, footer, joined, maps, readings, revival
from finetune_wrappers.reporting.claims import Claim, markdown_claims
from finetune_wrappers.reporting.paper_values import TABLES
from finetune_wrappers.types import InputError

ONE_MAP = np.full((3, 9, 9), 1 / 9)


@pytest.fixture(scope="module")
def facts():
  config = tab03_behaviour.get_config("quick")
  with config.unlocked():
    config.pruning.single_weights = 1
  return facts_of(config)


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
  assert f"over 8 numbers: {100 * expected:.1f} percentage points (0 more diverged here or" in text
  assert "216 of the paper's were not run" in text
  assert f"Counter: {100 * expected:.1f} points over 8 numbers." in text
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
    ({0.1: 0.95, 0.01: 0.91}, {0.1: 0.9, 0.01: 0.71}, {0.1: 0.49, 0.01: 0.1}, ["yes", "yes"]),
    ({0.1: 0.95, 0.01: 0.8}, {0.1: 0.9, 0.01: 0.9}, {0.1: 0.49, 0.01: 0.6}, ["partly", "partly"]),
    ({0.1: 0.85, 0.01: 0.8}, {0.1: 0.9, 0.01: 0.6}, {0.1: 0.9, 0.01: 0.1}, ["no", "no"]),
    ({0.1: None, 0.01: None}, {0.1: None, 0.01: None}, {0.1: None, 0.01: None}, ["not judged"] * 2),
  ],
)
def test_claims_of_table_3_are_judged_at_every_rate(facts, learned, where, elsewhere, expected):
  rows = guess_rows("counter")
  for rate in learned:
    rows += tuned([learned[rate]] * 2, rate=rate, c_tr=0.0) + tuned([where[rate]] * 2, rate=rate, c_te=1)
    rows += tuned([elsewhere[rate]] * 2, rate=rate)
  lines = table_lines(behaviour.make(rows, {}, facts).verdict)[2:]
  assert [line[1] for line in lines] == expected
  assert all("η_L 0.1" in line[2] and "η_M 0.01" in line[2] for line in lines)


@pytest.mark.parametrize(
  ("shown", "expected"),
  [([0.5, 0.5], "yes"), ([0.31, 0.9], "partly"), ([0.1, 0.1], "no"), ([None, None], "not judged")],
)
def test_what_shows_through_in_table_3_is_judged_against_the_guess(facts, shown, expected):
  rows = guess_rows("counter") + tuned(shown, metric="acc_pt")
  ((claim, answer, _),) = table_lines(behaviour.make(rows, {}, facts).verdict)[2:]
  assert "above the guess of 20.0 %" in claim and answer == expected


def test_rates_that_diverged_say_so_and_two_c_trs_are_not_joined(facts):
  rows = guess_rows("counter") + tuned([None], rate=0.1) + tuned([0.5], rate=0.01) + tuned([0.5], rate=0.01, c_tr=0.0)
  figure = behaviour.make(rows, {}, facts).figures["figure"]
  lines = {line.get_label(): line for axis in figure.axes for line in axis.lines if len(line.get_xdata())}
  assert "η_L 0.1, diverged" in lines and lines["η_M 0.01"].get_linestyle() == "None"


def test_one_seed_never_says_yes_to_table_3(facts):
  rows = guess_rows("counter") + tuned([0.99], c_tr=0.0) + tuned([0.99], c_te=1) + tuned([0.01])
  assert [line[1] for line in table_lines(behaviour.make(rows, {}, facts).verdict)[2:]] == ["partly", "partly"]


def test_readings_mark_diverged_runs_and_count_the_points_to_the_paper(facts):
  rows = []
  for reading, pt, ft in (("default", 0.3, 0.5), ("no clip", None, None), ("noise", 0.3, None)):
    for metric, value in (("acc_pt", pt), ("acc_ft", ft)):
      for c_te in (0, 1):
        rows += tuned([value], c_te=c_te, metric=metric, reading=reading)
        rows += tuned([None if pt is None else 0.77], c_te=c_te, metric=metric, reading=reading, step=0)
  points = np.mean([abs(0.3 - 0.358), abs(0.5 - 0.007), abs(0.3 - 0.0), abs(0.5 - 1.0)])
  made = readings.make(rows, {}, facts)
  assert line_that_starts(made.table, "default") == ["default", "77", "30.0 / 50.0", f"{100 * points:.1f}"]
  assert line_that_starts(made.table, "no clip") == ["no clip", "x", "x / x", "x"]
  points = np.mean([abs(0.3 - 0.358), abs(0.3 - 0.0)])
  assert line_that_starts(made.table, "noise") == ["noise", "77", "30.0 / x", f"{100 * points:.1f} (2 cells)"]


@pytest.mark.parametrize(
  ("after", "expected"),
  [
    ({1.0: (0.65, 0.1), 0.0: (0.0, 0.25)}, ["yes", "yes"]),
    ({1.0: (0.4, 0.1), 0.0: (0.0, 0.15)}, ["partly", "partly"]),
    ({1.0: (0.2, 0.9), 0.0: (0.9, 0.1)}, ["no", "no"]),
    ({1.0: ([0.6, 0.8], 0.1), 0.0: (0.0, [0.2, 0.4])}, ["partly", "partly"]),  # the intervals reach below
    ({1.0: ([0.7], 0.1), 0.0: (0.0, [0.4])}, ["partly", "partly"]),  # one seed has no interval
    ({1.0: ([None, None], 0.1), 0.0: (0.0, [None, None])}, ["not judged", "not judged"]),
  ],
)
@pytest.mark.parametrize("task", NAMES)
def test_attention_is_compared_with_the_compiled_models(task, after, expected):
  models = {("compile", None): (0.8, 0.1), **{("finetune", c_tr): shares for c_tr, shares in after.items()}}
  rows = attention_rows(task, models, 2)
  elsewhere = [{**row, "block": 0, "value": 0.75} for row in rows if "block" in row]
  assert answers(maps._claims([*rows, *elsewhere], task)) == expected


def test_attention_that_is_no_more_than_uniform_shows_nothing():
  models = {("compile", None): (0.8, 0.0), ("finetune", 1.0): (0.7, 0.0), ("finetune", 0.0): (0.0, 0.2)}
  assert answers(maps._claims(attention_rows("counter", models, 2, uniform=(0.1, 0.1)), "counter")) == ["yes", "yes"]
  assert answers(maps._claims(attention_rows("counter", models, 2, uniform=(0.75, 0.3)), "counter")) == ["no", "no"]
  claims = maps._claims(attention_rows("counter", models, 2, uniform=(0.8, 0.1)), "counter")
  assert answers(claims) == ["not judged", "yes"] and "uniform 80.0" in claims[0].evidence


def test_shares_of_attention_stand_beside_uniform_attentions(facts):
  models = {("compile", None): (0.8, 0.0), ("finetune", 1.0): ([0.1, 0.9], [None, 0.3])}
  made = maps.make(
    attention_rows("counter", models, 2, uniform=(0.15, 0.05)), {"counter/compiled/abcdef/attention": ONE_MAP}, facts
  )
  table = dict(made.sections)["Attention of the answer position, C_Te = 0"]
  assert line_that_starts(table, "Counter", "uniform attention")[2:] == ["any", "15.0", "5.0"]
  shares = line_that_starts(table, "Counter", "fine-tuned η_L 0.1, C_Tr 1", "1")[3:]
  assert shares == ["50.0 [0.0, 100.0]", "30.0, diverged (1 of 2)"]
  (axis,) = made.figures["figure_shares"].axes
  assert [bar.get_height() for bar in axis.patches] == pytest.approx([80, 50, 0, 30])
  assert {line.get_label(): line.get_ydata()[0] for line in axis.lines if "uniform" in str(line.get_label())} == {
    "uniform, O_PT": 15, "uniform, O_FT": 5,
  }  # fmt: skip
  assert "(uniform: 0.111)" in made.figures["figure"].axes[-1].get_ylabel()


def all_rows(task, seeds):
  """Rows that every report finds something in."""
  tuned_rows = [{**row, "reading": "default"} for row in table3_rows(lambda *_: [0.4] * seeds, task)]
  rows = [*guess_rows(task), *tuned_rows, *({**row, "step": 0} for row in tuned_rows)]
  curves = [*reft_rows([10] * seeds), *passage_rows("scratch_ft", [100] * seeds)]
  for score in ("gradient", "random", "random_best"):
    curves += pruned({0: [0.2] * seeds, 1: [0.9] * seeds}, score=score)
    curves += pruned({0: [0.9] * seeds, 1: [0.2] * seeds}, score=score, metric="acc_ft")
  singles = [row for m in ("acc_pt", "acc_ft") for row in single_rows([[0.5] * seeds], [0.2] * seeds, metric=m)]
  curves += [row for row in singles if row["stage"] == "prune_single"]
  curves += share_rows({0: [0.5] * seeds, 1: [0.6] * seeds})
  curves += rows_of("prune", "label_share", [1.0], label="1", c_te=0, operand="pt")
  models = {("compile", None): (0.8, 0.1), ("finetune", 1.0): (0.7, 0.2)}
  return [*rows, *({**row, "task": task} for row in curves), *attention_rows(task, models, seeds)]


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("report", ["behaviour", "revival", "pruning", "readings", "maps", "quickstart"])
def test_every_report_has_a_figure_and_names_its_tasks(facts, report, seeds):
  tasks = list(NAMES)
  maps_of = {f"{task}/compiled/abcdef/attention": ONE_MAP for task in tasks}
  made = importlib.import_module(f"experiments.reports.{report}").make(
    [row for task in tasks for row in all_rows(task, seeds)], maps_of, facts
  )
  assert isinstance(made.figures["figure"], Figure) and made.figures["figure"].axes
  text = made.markdown(facts)
  assert all(NAMES[task] in text for task in tasks) and made.printed(facts).strip() and "nan" not in text.lower()
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


def test_a_summary_says_what_its_intervals_are(facts):
  made = behaviour.make([*table3_rows(lambda *_: [0.4] * 3), *guess_rows("counter")], {}, facts)
  for seeds, says in (
    (
      [0, 1],
      ["over 2 seeds", "1 degree of freedom", "9.0 standard deviations", "clipped to what is possible (0 to 100 %"],
    ),
    ([0, 1, 2], ["over 3 seeds", "2 degrees of freedom", "2.5 standard deviations"]),
    ([7], ["One seed: no interval"]),
  ):
    own = {**facts, "config": {**facts["config"], "seeds": seeds}}
    assert all(text in made.markdown(own) for text in says)
    assert (f"95 % t intervals over {len(seeds)} seeds" in footer(own)) == (len(seeds) > 1)
  assert "interval" not in footer(facts, intervals=False)


@pytest.mark.parametrize("config", [tab03_behaviour, fig09_reft])
def test_a_preset_that_shows_nothing_says_so_in_place_of_every_verdict(config):
  rows = [*reft_rows([10] * 3), *passage_rows("scratch_ft", [100] * 3), *guess_rows("counter")]
  smoke, quick = (facts_of(config.get_config(preset)) for preset in ("smoke", "quick"))
  made = revival.make(rows, {}, quick)
  assert "| yes |" in made.printed(quick) and "| yes |" in made.markdown(quick)
  for found in (revival.make(rows, {}, smoke), joined(made, made, "again")):
    for text in (found.printed(smoke), found.markdown(smoke)):
      assert "Nothing: the preset `smoke` only runs every part once" in text and "something: quick, paper" in text
      assert "| yes |" not in text and "sooner than" not in text
  table = readings.make([{**row, "reading": "default"} for row in all_rows("counter", 2)], {}, smoke)
  assert table.table and table.table not in table.printed(smoke)


def test_a_claim_needs_a_known_answer_a_text_and_evidence():
  table = markdown_claims([Claim("it | holds", "yes", "3 of 3"), Claim("it fails", "no", "0 of 3")])
  assert table_lines(table)[2:] == [["it \\| holds", "yes", "3 of 3"], ["it fails", "no", "0 of 3"]]
  for bad in (("it holds", "maybe", "3 of 3"), (" ", "yes", "3 of 3"), ("it holds", "yes", "")):
    with pytest.raises(InputError, match=r"\A[^\n]+\Z"):
      Claim(*bad)
