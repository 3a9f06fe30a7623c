"""The paper's numbers as rows, to compare with ours. Source and column names: paper_tables/README.md."""

import csv
import os
import pathlib
from collections.abc import Callable
from typing import Any

from finetune_wrappers.types import InputError

TABLES = pathlib.Path(__file__).parent / "paper_tables"  # package data, see setup.py

_TASKS = ("counter", "max_identifier")
# From the names in the tables to ours.
_PCFG_TASKS = {"counting": "counting", "index_of_occurrence": "index"}
_PRIORS = {"0.999": "low", "0.9": "medium", "0.5": "high"}


def table3(path: str | os.PathLike | None = None) -> list[dict[str, Any]]:
  """Table 3: Counter and Max-identifier after fine-tuning.

  Args:
    path: of the CSV; None for the one that comes with the package.

  Returns:
    One dict a number: `task`, `learning_rate`, `c_tr`, `c_te` (0.0 or 1.0), `metric` (acc_pt or acc_ft) and
    `value`, a fraction in [0, 1]; in the order of the file, C_Te = 1 first.

  Raises:
    InputError: if the file cannot be read or a line is invalid; names the file and the line.
  """
  return _rows_of(path or TABLES / "table3_tracr_finetuning.csv", _table3_line, "Table 3")


def pcfg_tables() -> list[dict[str, Any]]:
  """Tables 5 and 7: fine-tuning for Counting and Index after 200K iterations of pretraining.

  Returns:
    One dict a number: `task`, `pretraining_steps`, `learning_rate`, `prior` (a name), `c_tr`, `step` (1000 or
    10 000), `c_te` (0 or 1), `metric` and `value`, a fraction in [0, 1].

  Raises:
    InputError: as `table3`.
  """
  tables = {"Table 5": "table5_pcfg_counter_200k.csv", "Table 7": "table7_pcfg_index_200k.csv"}
  return [row for name, file in tables.items() for row in _rows_of(TABLES / file, _pcfg_line, name)]


TABLE1_STEPS = (0, 30, 300, 3000)
_DELETED = {
  "filtering": "F",
  "filtering+randomisation": "F + Randomisation",
  "filtering+mix_and_match": "F + Mix & Match",
  "not_in_pretraining": "not in pretraining",
}


def table1() -> list[dict[str, Any]]:
  """Table 1: generation scores as Twist is revived.

  Returns:
    One dict a line: `model`, its protocol and learning rate in words, and `scores`, fractions at TABLE1_STEPS.

  Raises:
    InputError: as `table3`.
  """
  return _rows_of(TABLES / "table1_tinystories_twist_percent.csv", _table1_line, "Table 1")


def _rows_of(path: str | os.PathLike, of_line: Callable[[dict], list[dict]], name: str) -> list[dict[str, Any]]:
  path = pathlib.Path(path)
  try:
    lines = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f"{path}: cannot be read; give the CSV of the paper's {name}") from error
  if not lines:
    raise InputError(f"{path}: empty; the paper's {name} is needed")
  rows = []
  for number, line in enumerate(lines, start=2):
    try:
      rows += of_line(line)
    except (KeyError, TypeError, ValueError) as error:
      raise InputError(f"{path}:{number}: not a line of {name}: {error}") from error
  return rows


def _table1_line(line: dict[str, str]) -> list[dict[str, Any]]:
  rate = {"eta_M": ", η_M", "eta_S": ", η_S", "": ""}[line["finetuning_lr"]]
  scores = [_fraction(line[f"reft_{step}"]) for step in TABLE1_STEPS]
  return [{"model": _DELETED[line["deletion_protocol"]] + rate, "scores": scores}]


def _pcfg_line(line: dict[str, str]) -> list[dict[str, Any]]:
  cell = {
    "task": _PCFG_TASKS[line["task"]],
    "pretraining_steps": int(line["pretraining_iterations"]),
    "learning_rate": float(line["learning_rate"]),
    "prior": _PRIORS[line["prior_a"]],
    "c_tr": float(line["c_tr"]),
  }
  return [
    {**cell, "step": step, "c_te": c_te, "metric": metric, "value": _fraction(line[f"{metric}_cte{c_te}_{name}"])}
    for step, name in ((1000, "1k"), (10_000, "10k"))
    for c_te in (0, 1)
    for metric in ("acc_pt", "acc_ft")
  ]


def _table3_line(line: dict[str, str]) -> list[dict[str, Any]]:
  if line["task"] not in _TASKS:
    raise ValueError(f"task {line['task']!r} is not one of {', '.join(_TASKS)}")
  cell = {"task": line["task"], "learning_rate": float(line["learning_rate"]), "c_tr": float(line["c_tr"])}
  return [
    {**cell, "c_te": c_te, "metric": metric, "value": _fraction(line[f"cte{c_te:.0f}_{metric}"])}
    for c_te in (1.0, 0.0)
    for metric in ("acc_pt", "acc_ft")
  ]


def _fraction(percent: str) -> float:
  """`98.3` becomes the float 0.983; 98.3 / 100 may round to a neighbour."""
  value = float(f"{percent}e-2")
  if not 0 <= value <= 1:
    raise ValueError(f"{percent} is not a percentage")
  return value
