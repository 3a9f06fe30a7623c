"""Rows: each measured number is a flat JSON object on its own line of rows.jsonl.

Required fields: experiment, setting, task, stage, metric, step, seed, value. Every swept value is a further field,
under its own name. Metrics named `acc_...` are accuracies, fractions in [0, 1]. A diverged run has `"diverged":true`
and a null value.
"""

import json
import math
import os
from collections.abc import Iterable
from typing import Any

from etils import epath

from finetune_wrappers.files import write_atomically
from finetune_wrappers.types import REQUIRED, ROW_COUNTS, ROW_TEXTS, InputError, canonical_json

Row = dict[str, Any]


def make_row(
  *,
  experiment: str,
  setting: str,
  task: str,
  stage: str,
  metric: str,
  step: int,
  seed: int,
  value: float | None,
  diverged: bool = False,
  **swept: Any,
) -> Row:
  """Makes a row and checks it. NumPy and JAX scalars become Python numbers.

  Args:
    experiment: name of the config.
    setting: which models and tasks, a name of letters, digits and _: `tracr`, `pcfg`, ...
    task: `counter`, `max_identifier`, ...
    stage: the stage measured, or the analysis: compile, pretrain, finetune, reft, scratch, prune, probe, ...
    metric: name of the quantity; `acc_...` for accuracies.
    step: training step of the stage, 0 or more.
    seed: of the run, 0 or more.
    value: finite; a fraction in [0, 1] for accuracies; None for a diverged run.
    diverged: whether the run diverged; the row has this field only if true.
    **swept: swept values (c_tr, learning_rate, k, ...): text, finite number, bool or None.

  Raises:
    InputError: for a field that is not as above.
  """
  row = {
    "experiment": experiment,
    "setting": setting,
    "task": task,
    "stage": stage,
    "metric": metric,
    "step": step,
    "seed": seed,
    "value": value,
    **swept,
  }
  row = {name: _plain(field) for name, field in row.items()}
  if diverged:
    row["diverged"] = True
  check_row(row)
  if value is not None:
    row["value"] = float(row["value"])
  return row


def check_row(row: Any) -> None:
  """Checks one row against the rules at the top of this file.

  Raises:
    InputError: naming the field and what is allowed.
  """
  if not isinstance(row, dict):
    raise InputError(f"row: {_short(row)} is not a JSON object")
  for name in REQUIRED:
    if name not in row:
      raise InputError(f"{name}: missing; a row needs {', '.join(REQUIRED)}")
  for name in ROW_TEXTS:
    if not isinstance(row[name], str) or not row[name]:
      raise InputError(f"{name}: {_short(row[name])} is not allowed; use a non-empty text")
  if not row["setting"].isidentifier():
    raise InputError(f"setting: {_short(row['setting'])} is not allowed; use a name of letters, digits and _")
  for name in ROW_COUNTS:
    if type(row[name]) is not int or row[name] < 0:
      raise InputError(f"{name}: {_short(row[name])} is not allowed; use a whole number from 0")
  for name, field in row.items():
    finite = not isinstance(field, float) or math.isfinite(field)
    if not isinstance(name, str) or not (field is None or isinstance(field, str | int | float)) or not finite:
      raise InputError(f"{name}: {_short(field)} is not allowed; use a text, a finite number, true, false or null")
  _check_value(row)


def _check_value(row: Row) -> None:
  value, diverged = row["value"], row.get("diverged", False)
  if type(diverged) is not bool or (value is None) != diverged:
    raise InputError(
      f"value: {_short(value)} with diverged {_short(diverged)} is not allowed; use null for a diverged run"
    )
  if value is None:
    return
  if isinstance(value, bool | str):
    raise InputError(f"value: {_short(value)} is not allowed; use a finite number, or null if the run diverged")
  if row["metric"].startswith("acc_") and not 0 <= value <= 1:
    raise InputError(f"value: {value} is not allowed for {row['metric']}; use a fraction from 0 to 1")


def write_rows(path: str | os.PathLike, rows: Iterable[Row]) -> None:
  """Writes rows in the order given, all of them or none. Equal rows give equal bytes.

  Args:
    path: of the file, replaced if it exists; its folder is made if missing.
    rows: from `make_row`.

  Raises:
    InputError: for an invalid row; the file is left unchanged.
    OSError: if the file cannot be written.
  """
  write_atomically(path, encoded(rows))


def encoded(rows: Iterable[Row]) -> bytes:
  """The contents of a file of these rows.

  Raises:
    InputError: for an invalid row.
  """
  lines = []
  for row in rows:
    check_row(row)
    lines.append(canonical_json(row) + "\n")
  return "".join(lines).encode()


def read_rows(path: str | os.PathLike) -> list[Row]:
  """Reads the rows of a file, in its order.

  Raises:
    InputError: if the file cannot be read or a line is not a valid row; names the file and the line.
  """
  try:
    text = epath.Path(path).read_bytes().decode()
  except UnicodeDecodeError as error:
    raise InputError(f"{os.fspath(path)}: not UTF-8 text; give a file of rows") from error
  except OSError as error:
    raise InputError(f"{os.fspath(path)}: {error.strerror}; give a readable file of rows") from error
  rows = []
  for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
    try:
      row = json.loads(line)
      check_row(row)
    except InputError as error:
      raise InputError(f"{os.fspath(path)}:{number}: {error}") from error
    except (ValueError, RecursionError) as error:
      raise InputError(
        f"{os.fspath(path)}:{number}: not a whole JSON object; give a file of rows that is not cut off"
      ) from error
    rows.append(row)
  return rows


def select(rows: Iterable[Row], **where: Any) -> list[Row]:
  """The rows whose fields have the given values; a missing field counts as None.

  Args:
    rows: to choose from; their order is kept.
    **where: a value by field; of a tuple, list or set of values one must match.
  """
  several = (tuple, list, set, frozenset)
  wanted = {name: value if isinstance(value, several) else (value,) for name, value in where.items()}
  return [row for row in rows if all(row.get(name) in values for name, values in wanted.items())]


def group(rows: Iterable[Row], *keys: str) -> dict[tuple, list[Row]]:
  """Groups rows by the values of some fields (None if missing), in order of first appearance."""
  groups: dict[tuple, list[Row]] = {}
  for row in rows:
    groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
  return groups


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else text[:57] + "..."


def _plain(value: Any) -> Any:
  return value.item() if getattr(value, "shape", None) == () else value
