"""The paper's numbers, as rows to lay beside ours. Source and column names: third_party/paper_tables/README.md."""

import csv
import os
import pathlib
from typing import Any

from finetune_wrappers.types import InputError

TABLES = pathlib.Path(__file__).resolve().parents[2] / "third_party" / "paper_tables"

_TASKS = ("counter", "max_identifier")


def table3(path: str | os.PathLike | None = None) -> list[dict[str, Any]]:
  """Table 3: Counter and Max-identifier after fine-tuning.

  Args:
    path: of the CSV; None for the one in this repository.

  Returns:
    One dict for each number: `task`, `learning_rate`, `c_tr`, `c_te` (0.0 or 1.0), `metric` (acc_pt or acc_ft) and
    `value`, a fraction in [0, 1]; in the order of the file, C_Te = 1 first.

  Raises:
    InputError: if the file is missing or a line is not what it should be; names file and line.
  """
  path = pathlib.Path(path) if path is not None else TABLES / "table3_tracr_finetuning.csv"
  try:
    lines = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f"{path}: cannot be read; run from a checkout of the repository, which holds it") from error
  if not lines:
    raise InputError(f"{path}: empty; the paper's Table 3 is needed")
  rows = []
  for number, line in enumerate(lines, start=2):
    try:
      rows += _table3_line(line)
    except (KeyError, TypeError, ValueError) as error:
      raise InputError(f"{path}:{number}: not a line of Table 3: {error}") from error
  return rows


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
  """98.3 becomes 0.983 exactly as written, not 98.3 / 100 with its rounding."""
  value = float(f"{percent}e-2")
  if not 0 <= value <= 1:
    raise ValueError(f"{percent} is not a percentage")
  return value
