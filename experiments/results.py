"""The folder of a run, `workdir/<name>`: rows.jsonl, arrays.npz and config.json, which says where they come from."""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from experiments import schema
from experiments.measures import Measured
from finetune_wrappers.files import write_atomically
from finetune_wrappers.reporting.rows import Row, encoded, read_rows
from finetune_wrappers.rules import shown
from finetune_wrappers.types import InputError, canonical_json

_FACTS = "config.json"
_FILES = ("rows.jsonl", "arrays.npz")
_LISTS, _SECTIONS = ("devices", "layouts", "trained_at"), ("config", "versions")
# How a run is done, which its numbers do not hang on.
_HOW = ("lanes_per_program", "layout.devices", "layout.inner", "checkpoint_seconds", "compilation_cache")
_EXTENDING = ("seeds", "tasks", "measures", "reft.learning_rates")
_AGAIN = "run the same command again, which trains nothing that is there"


class Results(NamedTuple):
  """What a folder holds.

  Attributes:
    rows: of rows.jsonl.
    arrays: of arrays.npz, by name; empty if the run measured none.
    facts: of config.json.
    checked: whether checksums say that all is as it was written; the first release kept none.
  """

  rows: list[Row]
  arrays: dict[str, np.ndarray]
  facts: dict[str, Any]
  checked: bool


def check_same(folder: epath.Path, config: ConfigDict) -> None:
  """Raises InputError if the folder holds rows of another config, or of one that cannot be told.

  A config that differs in how it is run is the same, and so is one that sweeps over every value of the folder's and
  over more: none of the folder's rows is lost.
  """
  keep = "; keep both with --config.name=OTHER, or move that folder away"
  if not (folder / _FACTS).exists():
    if (folder / _FILES[0]).exists():
      raise InputError(f"name: {folder} holds rows without {_FACTS}, of a config that cannot be told{keep}")
    return
  try:
    there = _flat(_facts(folder)["config"])
  except InputError as error:
    raise InputError(f"name: {error}{keep}") from error
  here = _flat(json.loads(json.dumps(config.to_dict())))
  kind = schema.setting_of(config).plan
  extending = {*_EXTENDING, *kind.axes.values(), *kind.base_axes.values()}
  for key in [key for key in {**there, **here} if key not in _HOW]:
    old, new = there.get(key), here.get(key)
    if old == new or (key in extending and _within(old, new)):
      continue
    raise InputError(f"name: {folder} holds rows of another config, {key} {shown(old)}, not {shown(new)}{keep}")


def write(folder: epath.Path, measured: Measured, facts: dict[str, Any]) -> None:
  """Writes all three files; config.json also gets the checksums of all.

  config.json comes first: a run that is killed in between leaves rows that do not match it, and the same config may
  write them again.

  Raises:
    OSError: if a file cannot be written.
  """
  files = {"rows.jsonl": encoded(measured.rows)}
  if measured.arrays:
    files["arrays.npz"] = _npz(measured.arrays)
  checksums = {name: _sha256(data) for name, data in {**files, _FACTS: canonical_json(facts).encode()}.items()}
  told = json.dumps({**facts, "checksums": checksums}, indent=1, sort_keys=True)
  write_atomically(folder / _FACTS, told.encode())
  for name in _FILES:
    if name in files:
      write_atomically(folder / name, files[name])
    else:
      (folder / name).unlink(missing_ok=True)


def read(folder: epath.Path) -> Results:
  """Reads a folder that `write` made.

  Raises:
    InputError: for a file that is missing, damaged, or not as it was written. A folder of the first release has no
      checksums; there only what cannot be read is found.
  """
  facts = _facts(folder)
  data = {name: _bytes(folder / name) for name in _FILES}
  if checksums := facts.pop("checksums", {}):
    own = canonical_json(facts).encode()
    for name, found in {**data, _FACTS: own}.items():
      if checksums.get(name) != (None if found is None else _sha256(found)):
        what = "missing" if found is None else "not as it was written with the others"
        raise InputError(f"{folder / name}: {what}; {_AGAIN}")
  return Results(
    read_rows(folder / "rows.jsonl"), _arrays(folder / "arrays.npz", data["arrays.npz"]), facts, bool(checksums)
  )


def _facts(folder: epath.Path) -> dict[str, Any]:
  """Contents of config.json, with what every report reads in place."""
  path = folder / _FACTS
  try:
    facts = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError) as error:
    why = error.strerror if isinstance(error, OSError) else "not a whole JSON object"
    raise InputError(f"{path}: cannot be read ({why}); {_AGAIN}") from error
  fine = isinstance(facts, dict)
  fine = fine and all(isinstance(facts.get(name), dict) for name in _SECTIONS)
  fine = fine and all(isinstance(facts.get(name), list) for name in _LISTS)
  fine = fine and isinstance(facts.get("checksums", {}), dict)
  if not fine:
    raise InputError(f"{path}: lacks {', '.join((*_SECTIONS, *_LISTS))} as a run writes them; {_AGAIN}")
  return facts


def _arrays(path: epath.Path, data: bytes | None) -> dict[str, np.ndarray]:
  if data is None:
    return {}
  try:
    with np.load(io.BytesIO(data)) as found:  # pickles are refused
      return dict(found)
  except Exception as error:  # zipfile, zlib and NumPy raise many types for a damaged file
    raise InputError(f"{path}: not a whole file of arrays ({type(error).__name__}); {_AGAIN}") from error


def _bytes(path: epath.Path) -> bytes | None:
  try:
    return path.read_bytes()
  except FileNotFoundError:
    return None
  except OSError as error:
    raise InputError(f"{path}: {error.strerror}; mend that first") from error


def _sha256(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
  buffer = io.BytesIO()
  np.savez_compressed(buffer, allow_pickle=False, **arrays)
  return buffer.getvalue()


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Dotted key to value."""
  found = {}
  for name, value in section.items():
    found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
  return found


def _within(old: Any, new: Any) -> bool:
  """Whether a list of values has all of another and more."""
  return isinstance(old, list) and isinstance(new, list) and all(value in new for value in old)
