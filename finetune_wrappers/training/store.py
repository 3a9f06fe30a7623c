"""The stage store: finished stages and interrupted cohorts, on disk, by content.

    workdir/stages/<key>/arrays/      Orbax: parameters and curves
    workdir/stages/<key>/stage.json   what the stage is, versions, checksum of the arrays
    workdir/cohorts/<key>/<step>/     Orbax: a cohort's last checkpoint, gone when it is done
    workdir/locks/<key>.lock          held while a cohort runs, so two processes do not train it twice

A folder is written under another name and renamed when complete: it is there whole or not at all.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from finetune_wrappers.training.stages import Stage, describe
from finetune_wrappers.types import InputError


class Store:
  """Reads and writes stages under one working directory.

  Args:
    workdir: made if missing.

  Raises:
    InputError: if it cannot be written.
  """

  def __init__(self, workdir: str | os.PathLike):
    self.root = pathlib.Path(workdir).absolute()
    with writing(self.root):
      for name in ("stages", "cohorts", "locks"):
        (self.root / name).mkdir(parents=True, exist_ok=True)
      probe = self.root / "locks" / f".probe-{os.getpid()}"
      probe.write_text("")
      probe.unlink()

  def has(self, stage: Stage) -> bool:
    """Whether the stage is finished."""
    return (self._folder(stage) / "stage.json").exists()

  def save(self, stage: Stage, arrays: Any, facts: dict[str, Any]) -> None:
    """Publishes a finished stage; keeps the one that is there if another process was faster.

    Args:
      stage: its description.
      arrays: pytree of NumPy or JAX arrays.
      facts: JSON values to keep with it (versions, layout, labels, ...).
    """
    arrays = jax.tree.map(np.asarray, arrays)
    record = {"stage": describe(stage), "checksum": checksum(arrays), "facts": facts}
    final = self._folder(stage)
    temporary = final.with_name(f".{final.name}-{os.getpid()}")
    with writing(self.root):
      shutil.rmtree(temporary, ignore_errors=True)
      temporary.mkdir()
      ocp.save(str(temporary / "arrays"), arrays)
      (temporary / "stage.json").write_text(json.dumps(record, indent=1, sort_keys=True))
      try:
        temporary.rename(final)
      except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
          raise
        shutil.rmtree(temporary)

  def load(self, stage: Stage) -> tuple[Any, dict[str, Any]]:
    """(arrays, facts) of a finished stage.

    Raises:
      InputError: if the folder is truncated, changed or not ours.
    """
    folder = self._folder(stage)
    try:
      record = json.loads((folder / "stage.json").read_text())
      arrays = jax.tree.map(np.asarray, ocp.load(str(folder / "arrays")))
      intact = record["stage"] == json.loads(json.dumps(describe(stage))) and record["checksum"] == checksum(arrays)
    except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged folder
      raise InputError(self._damaged(folder, type(error).__name__)) from error
    if not intact:
      raise InputError(self._damaged(folder, "contents do not match its description"))
    return arrays, record["facts"]

  def facts(self, stage: Stage) -> dict[str, Any]:
    """What was kept with a finished stage, without reading its arrays.

    Raises:
      InputError: if the folder is truncated or not ours.
    """
    folder = self._folder(stage)
    try:
      record = json.loads((folder / "stage.json").read_text())
      ours, facts = record["stage"] == json.loads(json.dumps(describe(stage))), record["facts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise InputError(self._damaged(folder, type(error).__name__)) from error
    if not ours:
      raise InputError(self._damaged(folder, "contents do not match its description"))
    return facts

  def _damaged(self, folder: pathlib.Path, why: str) -> str:
    return f"workdir: stage {folder} is truncated or foreign ({why}); delete that folder to train it again"

  def _folder(self, stage: Stage) -> pathlib.Path:
    return self.root / "stages" / stage.key

  def save_progress(self, key: str, step: int, arrays: Any) -> None:
    """Keeps an interrupted cohort's state; the checkpoint before it is removed afterwards."""
    folder = self.root / "cohorts" / key
    with writing(self.root):
      folder.mkdir(exist_ok=True)
      shutil.rmtree(folder / str(step), ignore_errors=True)
      ocp.save(str(folder / str(step)), {"checksum": _as_array(checksum(arrays)), "arrays": arrays})
      for other in folder.iterdir():
        if other.name != str(step):
          shutil.rmtree(other, ignore_errors=True)

  def load_progress(self, key: str) -> tuple[int, Any] | None:
    """(step, arrays) of the newest checkpoint that is whole, or None."""
    folder = self.root / "cohorts" / key
    steps = sorted((int(f.name) for f in folder.glob("*") if f.name.isdigit()), reverse=True)
    for step in steps:
      with contextlib.suppress(Exception):  # a half-written checkpoint: the one before it is used
        kept = ocp.load(str(folder / str(step)))
        arrays = jax.tree.map(np.asarray, kept["arrays"])
        if np.array_equal(kept["checksum"], _as_array(checksum(arrays))):
          return step, arrays
    return None

  def drop_progress(self, key: str) -> None:
    """Removes a finished cohort's checkpoints."""
    shutil.rmtree(self.root / "cohorts" / key, ignore_errors=True)

  @contextlib.contextmanager
  def lock(self, key: str) -> Iterator[None]:
    """Waits until no other process holds this key, and holds it. Freed by the system if we are killed."""
    path = self.root / "locks" / f"{key}.lock"
    with writing(self.root):
      file = path.open("w")
    with file:
      fcntl.flock(file, fcntl.LOCK_EX)
      yield

  def remember(self, name: str, value: Any) -> None:
    """Keeps a small JSON value, such as the layout that was fastest."""
    path = self.root / "locks" / f"{name}.json"
    with writing(self.root):
      write_atomic(path, json.dumps(value, sort_keys=True))

  def recall(self, name: str) -> Any:
    """What `remember` kept, or None."""
    path = self.root / "locks" / f"{name}.json"
    with contextlib.suppress(OSError, json.JSONDecodeError):
      return json.loads(path.read_text())
    return None


def checksum(arrays: Any) -> str:
  """SHA-256 of names, shapes, types and bytes of a pytree of arrays."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
    leaf = np.ascontiguousarray(leaf)
    digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()


def _as_array(hexadecimal: str) -> np.ndarray:
  return np.frombuffer(bytes.fromhex(hexadecimal), np.uint8)


def write_atomic(path: pathlib.Path, text: str) -> None:
  """Writes a file whole or not at all."""
  temporary = path.with_name(f".{path.name}-{os.getpid()}")
  temporary.write_text(text)
  os.replace(temporary, path)


@contextlib.contextmanager
def writing(root: pathlib.Path) -> Iterator[None]:
  """Turns a disk that cannot be written, or is full, into one line."""
  try:
    yield
  except (OSError, ValueError) as error:
    number = error.errno if isinstance(error, OSError) else _number_of(error)
    if number is None and isinstance(error, ValueError):
      raise
    reason = "is full" if number == errno.ENOSPC else f"cannot be written ({os.strerror(number or errno.EIO)})"
    raise InputError(f"workdir: {root} {reason}; use a writable folder with space left") from error


def _number_of(error: ValueError) -> int | None:
  """The system's error number, which TensorStore keeps only in its text."""
  found = re.search(r"os_error_code='(\d+)'", str(error))
  return int(found.group(1)) if found else None
