"""The paper's Tables 1, 3, 5 and 7: full grids, a few of their numbers, and what a damaged file says."""

import csv
import re
from collections import Counter

import pytest

from finetune_wrappers.reporting import paper_values
from finetune_wrappers.reporting.paper_values import pcfg_tables, table3
from finetune_wrappers.types import InputError

HEADER = "task,learning_rate,c_tr,cte1_acc_pt,cte1_acc_ft,cte0_acc_pt,cte0_acc_ft\n"


def test_table3_is_a_full_grid_of_fractions():
  rows = table3()
  assert {tuple(row) for row in rows} == {("task", "learning_rate", "c_tr", "c_te", "metric", "value")}
  cells = Counter((r["task"], r["learning_rate"], r["c_tr"], r["c_te"], r["metric"]) for r in rows)
  assert set(cells.values()) == {1} and len(cells) == 2 * 4 * 7 * 2 * 2
  assert {r["task"] for r in rows} == {"counter", "max_identifier"}
  assert {r["learning_rate"] for r in rows} == {1e-1, 1e-2, 1e-3, 1e-4}
  assert {r["c_tr"] for r in rows} == {0.0, 0.2, 0.5, 0.6, 0.8, 0.9, 1.0}
  assert {r["c_te"] for r in rows} == {0.0, 1.0} and {r["metric"] for r in rows} == {"acc_pt", "acc_ft"}
  assert all(0 <= r["value"] <= 1 for r in rows)


@pytest.mark.parametrize(
  ("task", "learning_rate", "c_tr", "c_te", "acc_pt", "acc_ft"),
  [
    ("counter", 1e-1, 1.0, 0.0, 0.358, 0.007),
    ("counter", 1e-2, 1.0, 1.0, 0.003, 0.983),
    ("counter", 1e-3, 0.0, 1.0, 0.546, 0.012),
    ("max_identifier", 1e-4, 1.0, 0.0, 0.007, 0.886),
  ],
)
def test_table3_has_the_papers_numbers(task, learning_rate, c_tr, c_te, acc_pt, acc_ft):
  where = {"task": task, "learning_rate": learning_rate, "c_tr": c_tr, "c_te": c_te}
  found = {row["metric"]: row["value"] for row in table3() if where.items() <= row.items()}
  assert found == {"acc_pt": acc_pt, "acc_ft": acc_ft}


def test_tables_5_and_7_are_full_grids_of_fractions():
  rows = pcfg_tables()
  keys = ("task", "pretraining_steps", "learning_rate", "prior", "c_tr", "step", "c_te", "metric")
  cells = Counter(tuple(row[key] for key in keys) for row in rows)
  assert set(cells.values()) == {1} and len(cells) == 2 * 3 * 3 * 4 * 2 * 2 * 2
  assert all(0 <= row["value"] <= 1 for row in rows)


@pytest.mark.parametrize(
  ("task", "learning_rate", "prior", "c_tr", "step", "c_te", "acc_pt", "acc_ft"),
  [
    ("counting", 1e-5, "low", 1.0, 1000, 0, 0.004, 0.0),
    ("counting", 1e-5, "low", 1.0, 1000, 1, 0.0, 0.999),
    ("counting", 1e-4, "medium", 0.8, 10_000, 0, 0.434, 0.992),
    ("index", 1e-4, "low", 0.8, 1000, 0, 0.149, 0.368),
  ],
)
def test_tables_5_and_7_have_the_papers_numbers(task, learning_rate, prior, c_tr, step, c_te, acc_pt, acc_ft):
  where = {"task": task, "learning_rate": learning_rate, "prior": prior, "c_tr": c_tr, "step": step, "c_te": c_te}
  found = {row["metric"]: row["value"] for row in pcfg_tables() if where.items() <= row.items()}
  assert found == {"acc_pt": acc_pt, "acc_ft": acc_ft}


def test_a_missing_table_is_an_input_error(tmp_path):
  with pytest.raises(InputError, match="cannot be read"):
    table3(tmp_path / "none.csv")


@pytest.mark.parametrize(
  "line",
  [
    "counter,1e-1,0,0.0,100.0,0.0",
    "counter,1e-1,0,0.0,100.1,0.0,1.0",
    "counter,1e-1,0,0.0,nan,0.0,1.0",
    "counter,large,0,0.0,1.0,0.0,1.0",
    "max,1e-1,0,0.0,1.0,0.0,1.0",
    "counter",
  ],
)
def test_a_bad_line_is_named(tmp_path, line):
  path = tmp_path / "table.csv"
  path.write_text(HEADER + "counter,1e-1,0,0.0,100.0,0.0,100.0\n" + line + "\n")
  with pytest.raises(InputError, match=rf"\A{re.escape(str(path))}:3: [^\n]+\Z"):
    table3(path)


@pytest.mark.parametrize("text", ["", HEADER, "some,other,table\n1,2,3\n"])
def test_another_file_is_refused(tmp_path, text):
  path = tmp_path / "table.csv"
  path.write_text(text)
  with pytest.raises(InputError, match=r"table.csv"):
    table3(path)


def test_table_1_has_the_papers_numbers():
  with (paper_values.TABLES / "table1_tinystories_twist_percent.csv").open() as file:
    lines = list(csv.DictReader(file))
  found = paper_values.table1()
  assert len(found) == len(lines) == 7
  for row, line in zip(found, lines, strict=True):
    assert row["scores"] == [int(line[f"reft_{step}"]) / 100 for step in paper_values.TABLE1_STEPS]
  by_model = {row["model"]: row["scores"] for row in found}
  assert by_model["F, η_M"] == [0.44, 0.81, 0.81, 0.82] and by_model["F + Randomisation, η_S"][2] == 0.81
  assert by_model["F + Mix & Match, η_M"] == [0.31, 0.88, 0.5, 0.75] and by_model["not in pretraining"] == [
    0.12,
    0.31,
    0.44,
    0.81,
  ]


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
