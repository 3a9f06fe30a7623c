"""Checkpoints of unfinished lanes, on disk.

A lane continues from its newest checkpoint, whichever lanes were saved with it:

workdir/cohorts/<key>/lanes.json   stage keys of the lanes, in the order of the arrays
workdir/cohorts/<key>/parts.json   what trained each lane, by stage key (`provenance.Part`)
workdir/cohorts/<key>/<step>/      Orbax: arrays with one entry a lane, and their checksum
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from orbax.checkpoint import v1 as ocp

from finetune_wrappers.files import remove, write_atomically
from finetune_wrappers.training import hosts
from finetune_wrappers.training.disk import OTHER_CONTENTS, Damaged, checksum, load_arrays, reading, writing
from finetune_wrappers.training.provenance import Part

_KEPT = 2


class Kept(NamedTuple):
  """One lane's newest checkpoint.

  Attributes:
    step: steps done.
    arrays: pytree of arrays.
    parts: what trained it so far, as far as that is known.
  """

  step: int
  arrays: Any
  parts: list[Part]


class Checkpoints:
  """Reads and writes checkpoints below `workdir/cohorts`.

  Args:
    root: root folder of the store.
  """

  def __init__(self, root):
    self._root = root
    self._folder = root / "cohorts"

  def save(self, lanes: Sequence[str], step: int, arrays: Any, parts: Mapping[str, list[Part]]) -> None:
    """Saves these lanes after `step` steps; keeps the previous checkpoint and deletes older ones.

    Every host must call this.

    Args:
      lanes: stage keys, R of them.
      step: steps done, the same for all of them.
      arrays: pytree of arrays [R, ...].
      parts: what trained each lane.

    Raises:
      InputError: if the disk is full or cannot be written.
    """
    folder = self._folder / hashlib.sha256(" ".join(lanes).encode()).hexdigest()[:16]
    with writing(self._root):
      hosts.on_first(lambda: _make_ready(folder, lanes, step, parts))
      ocp.save(folder / str(step), {"checksum": _checksum(lanes, arrays), "arrays": arrays})
      hosts.on_first(lambda: _keep_newest(folder))

  def load(self, lanes: Sequence[str]) -> dict[str, Kept]:
    """Each lane's newest undamaged checkpoint; a lane without one is left out."""
    found: dict[str, Kept] = {}
    for step, folder, members in self._newest_first():
      wanted = [lane for lane in lanes if lane in members and lane not in found]
      arrays = _read(folder / str(step), members) if wanted else None
      for lane in wanted if arrays is not None else []:
        place = members.index(lane)
        own = jax.tree.map(lambda x, place=place: np.array(x[place]), arrays)
        found[lane] = Kept(step, own, _parts(folder).get(lane, []))
    return found

  def steps(self) -> dict[str, int]:
    """Step of each lane's newest checkpoint, from folder names only: the checkpoint may be damaged."""
    far: dict[str, int] = {}
    for step, _, members in self._newest_first():
      for lane in members:
        far.setdefault(lane, step)
    return far

  def tidy(self, done: Callable[[str], bool]) -> None:
    """Removes the checkpoints whose lanes are all done. Only one host may call this."""
    with writing(self._root):
      for folder in list(self._folder.iterdir()):
        members = _members(folder)
        if members and all(map(done, members)):
          for step in _steps_in(folder):
            remove(folder / str(step))
          remove(folder)  # last: if killed before, the next call still finds lanes.json

  def _newest_first(self) -> list[tuple[int, Any, list[str]]]:
    """(step, folder of the cohort, lanes) of every checkpoint."""
    found = []
    for folder in self._folder.iterdir() if self._folder.exists() else ():
      members = _members(folder)
      found += [(step, folder, members) for step in _steps_in(folder)] if members else []
    return sorted(found, key=lambda entry: (-entry[0], str(entry[1])))


def _make_ready(folder, lanes: Sequence[str], step: int, parts: Mapping[str, list[Part]]) -> None:
  folder.mkdir(exist_ok=True)
  write_atomically(folder / "parts.json", json.dumps(parts, sort_keys=True).encode())
  write_atomically(folder / "lanes.json", json.dumps(list(lanes)).encode())
  remove(folder / str(step))


def _keep_newest(folder) -> None:
  """Keeps the newest checkpoint and one fallback."""
  steps = sorted(_steps_in(folder))[-_KEPT:]
  for other in folder.iterdir():
    if other.name not in ("lanes.json", "parts.json", *map(str, steps)):
      remove(other)


def _members(folder) -> list[str]:
  """The lanes of a cohort's folder; none if it is foreign or was just removed."""
  with contextlib.suppress(OSError, ValueError, TypeError):
    return [str(lane) for lane in json.loads((folder / "lanes.json").read_text())]
  return []


def _parts(folder) -> dict[str, list[Part]]:
  """The parts of each lane; none if the file is missing, as in older workdirs, or damaged."""
  with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
    told = json.loads((folder / "parts.json").read_text())
    return {lane: [part for part in parts if isinstance(part["from"], int)] for lane, parts in told.items()}
  return {}


def _steps_in(folder) -> list[int]:
  with contextlib.suppress(OSError):
    return [int(path.name) for path in folder.iterdir() if path.name.isascii() and path.name.isdigit()]
  return []


def _read(folder, lanes: Sequence[str]) -> Any:
  """The arrays of a checkpoint; None, with a warning, if it is damaged.

  Raises:
    InputError: if a file cannot be read.
  """
  try:
    with reading(folder, "checkpoint"):
      kept = load_arrays(folder)
      if not np.array_equal(kept["checksum"], _checksum(lanes, kept["arrays"])):
        raise Damaged(OTHER_CONTENTS)
      return kept["arrays"]
  except Damaged as error:
    if hosts.is_first():
      logging.warning("workdir: checkpoint %s is truncated or foreign (%s) and is passed over", folder, error)
    return None


def _checksum(lanes: Sequence[str], arrays: Any) -> np.ndarray:
  """SHA-256 over the stage keys and all arrays, as bytes."""
  text = " ".join([checksum(arrays), *lanes])
  return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
