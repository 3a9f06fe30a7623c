"""The stage store: finished stages on disk, in folders named by stage key.

    workdir/stages/<key>/arrays/      Orbax: parameters and curves
    workdir/stages/<key>/stage.json   description of the stage, versions, checksums
    workdir/cohorts/                  see `checkpoints`
    workdir/damaged/                  stages moved by `set_aside`
    workdir/locks/<key>.lock          held while a stage is trained, so that only one process trains it

A folder is written under a temporary name and renamed when complete, so a stage is there whole or not at all. The
workdir may be any path that etils can write, such as `gs://bucket/runs` (untested; needs gcsfs). Locks are those of
the file system: without them only one command at a time may use a workdir.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import resource
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from finetune_wrappers.files import located, remove, write_atomically
from finetune_wrappers.training import hosts
from finetune_wrappers.training.disk import OTHER_CONTENTS, Damaged, checksum, load_arrays, reading, writing
from finetune_wrappers.training.stages import Stage, describe
from finetune_wrappers.types import InputError, canonical_json, require

FOLDERS = ("stages", "cohorts", "locks", "damaged")
_FILES = 2**16  # files open at once
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # errors of file systems without locks


class DamagedStage(InputError):
  """A stage is truncated, changed or foreign.

  Attributes:
    what: the message without the advice at its end.
  """

  def __init__(self, folder: epath.Path, why: str):
    self.what = f"workdir: stage {folder} is truncated or foreign ({why})"
    super().__init__(f"{self.what}; move that folder away to train it again")


class Store:
  """Reads and writes stages under one working directory.

  Args:
    workdir: made if missing.

  Attributes:
    root: the workdir.
    is_local: whether the workdir is on a file system, with locks and renaming.

  Raises:
    InputError: if the workdir cannot be written, or its path has characters that Orbax cannot read back.
  """

  def __init__(self, workdir: str | os.PathLike):
    self.root = located(workdir)
    # Orbax writes below such a path, but reads `[...]` as a pattern and a backslash as an escape.
    fine = not re.search(r"\\|\[.*\]", str(self.root), re.DOTALL)
    require(fine, "workdir", str(self.root), "a path without [...] or backslashes, which Orbax cannot read back")
    self.is_local = "://" not in str(self.root)
    _allow_many_files()
    with writing(self.root):
      for name in ("stages", "cohorts", "locks"):
        (self.root / name).mkdir(parents=True, exist_ok=True)
      probe = self.root / "locks" / f".probe-{uuid.uuid4().hex}"
      probe.write_text("")
      probe.unlink()

  def has(self, stage: Stage) -> bool:
    """Whether the stage is finished."""
    return self.has_key(stage.key)

  def has_key(self, key: str) -> bool:
    """Whether the stage with this key is finished."""
    return (self.root / "stages" / key / "stage.json").exists()

  def save(self, stage: Stage, arrays: Any, facts: dict[str, Any]) -> None:
    """Saves a finished stage; if another process was faster, its stage stays.

    Every host must call this.

    Args:
      stage: the finished stage.
      arrays: pytree of NumPy or JAX arrays.
      facts: JSON values to save with it (versions, layout, labels, ...).

    Raises:
      InputError: if it cannot be written, or does not read back as written.
    """
    arrays = jax.tree.map(np.asarray, arrays)
    facts = json.loads(json.dumps(facts))  # as `load` will return them: JSON turns keys into text
    told = {"stage": describe(stage), "checksum": checksum(arrays), "facts": facts}
    record = {**told, "facts_checksum": _checksum_of(facts)}
    final = self._folder(stage)
    # An object store cannot rename folders: there a stage counts as finished once stage.json, written last, exists.
    own = hosts.agree(lambda: uuid.uuid4().hex[:12])  # not the process id: two containers may share it
    temporary = final.with_name(f".{final.name}-{own}") if self.is_local else final
    try:
      with writing(self.root):
        hosts.on_first(lambda: _begin(temporary))
        ocp.save(temporary / "arrays", arrays)
        hosts.together(lambda: self._read_back(temporary, told["checksum"]))
        hosts.on_first(lambda: self._publish(stage, temporary, json.dumps(record, indent=1, sort_keys=True)))
    except InputError:
      if self.is_local and hosts.is_first():
        remove(temporary)  # else every retry on a full disk would leave one more
      raise

  def _read_back(self, folder: epath.Path, expected: str) -> None:
    """Raises InputError unless the arrays read back as written: only then may checkpoints go that they came from."""
    try:
      with reading(folder, "stage"):
        same = checksum(load_arrays(folder / "arrays")) == expected
    except Damaged:
      same = False
    if not same:
      raise InputError(f"workdir: what was written to {self.root} reads back as something else; look at the disk")

  def _publish(self, stage: Stage, temporary: epath.Path, record: str) -> None:
    (temporary / "stage.json").write_text(record)
    if not self.is_local:
      return
    try:
      temporary.rename(self._folder(stage))
    except OSError:
      if self.has(stage):
        remove(temporary)
        return
      if not self._folder(stage).exists():
        raise
      moved = self._move_aside(stage)  # someone copied or deleted part of it
      logging.warning("workdir: stage %s had no stage.json and is now %s", self._folder(stage), moved)
      temporary.rename(self._folder(stage))

  def load(self, stage: Stage) -> tuple[Any, dict[str, Any]]:
    """(arrays, facts) of a finished stage.

    Raises:
      DamagedStage: if the folder is truncated, changed or foreign.
      InputError: if a file cannot be read.
    """
    with self._reading(stage) as folder:
      record = self._record(stage)
      arrays = load_arrays(folder / "arrays")
      if record["checksum"] != checksum(arrays):
        raise Damaged(OTHER_CONTENTS)
    return arrays, record["facts"]

  def facts(self, stage: Stage) -> dict[str, Any]:
    """The facts saved with a finished stage, without reading its arrays.

    Raises:
      DamagedStage: if the folder is truncated or foreign.
      InputError: if a file cannot be read.
    """
    with self._reading(stage):
      return self._record(stage)["facts"]

  def _record(self, stage: Stage) -> dict[str, Any]:
    """Checksum of the arrays and facts from stage.json, checked."""
    record = json.loads((self._folder(stage) / "stage.json").read_text())
    if record["stage"] != json.loads(json.dumps(describe(stage))):
      raise Damaged(OTHER_CONTENTS)
    expected = _checksum_of(record["facts"])
    if record.get("facts_checksum", expected) != expected:  # the oldest of results/models have none
      raise Damaged(OTHER_CONTENTS)
    return {name: record[name] for name in ("checksum", "facts")}

  @contextlib.contextmanager
  def _reading(self, stage: Stage) -> Iterator[epath.Path]:
    """Turns errors of reading a stage into DamagedStage or InputError."""
    folder = self._folder(stage)
    try:
      with reading(folder, "stage"):
        yield folder
    except Damaged as error:
      raise DamagedStage(folder, str(error)) from error

  def damage(self, stage: Stage) -> DamagedStage | None:
    """Error that describes how the stage is damaged; None if it is undamaged or missing.

    Raises:
      InputError: if a file cannot be read.
    """
    try:
      if self.has(stage):
        self.load(stage)
    except DamagedStage as error:
      return error
    return None

  def set_aside(self, stage: Stage) -> epath.Path | None:
    """Moves a damaged stage to `workdir/damaged`, so that it is trained again but not lost.

    Returns:
      Its new folder; None if it was not damaged or another process holds its lock.

    Raises:
      InputError: if it cannot be moved.
    """
    with self.lock([stage.key]) as held:
      return self._move_aside(stage) if held and self.damage(stage) else None

  def _move_aside(self, stage: Stage) -> epath.Path:
    moved = self.root / "damaged" / f"{stage.key}-{uuid.uuid4().hex[:12]}"
    with writing(self.root):
      moved.parent.mkdir(exist_ok=True)
      self._folder(stage).rename(moved)
    return moved

  def _folder(self, stage: Stage) -> epath.Path:
    return self.root / "stages" / stage.key

  @contextlib.contextmanager
  def lock(self, keys: Sequence[str]) -> Iterator[bool]:
    """Locks these stage keys against other processes; the system releases the locks if this process is killed.

    Yields:
      Whether all are locked; if another process has locked one of them, none is.
    """
    with contextlib.ExitStack() as held:
      for key in keys if self.is_local else ():
        with writing(self.root):
          file = held.enter_context((self.root / "locks" / f"{key}.lock").open("w"))
        try:
          fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
          held.close()
          yield False
          return
        except OSError as error:
          if error.errno not in _NO_LOCKS:
            raise InputError(f"workdir: {self.root} cannot be locked ({error.strerror}); mend that first") from error
      yield True

  def tidy(self) -> None:
    """Removes temporary folders of killed saves whose stage is finished by now."""
    with writing(self.root):
      for folder in list((self.root / "stages").iterdir()):
        hidden, _, key = folder.name.partition(".")
        if not hidden and self.has_key(key.partition("-")[0]):
          remove(folder)

  def remember(self, name: str, value: Any) -> None:
    """Saves a small JSON value, such as the fastest layout."""
    path = self.root / "locks" / f"{name}.json"
    record = {"value": value, "checksum": _checksum_of(value)}
    with writing(self.root):
      write_atomically(path, json.dumps(record, sort_keys=True).encode())

  def recall(self, name: str) -> Any:
    """The value saved by `remember`; None if it is missing or damaged."""
    path = self.root / "locks" / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
      record = json.loads(path.read_text())
      if record["checksum"] == _checksum_of(record["value"]):
        return record["value"]
    return None


def _begin(folder: epath.Path) -> None:
  """Makes an empty folder; an object store may still hold the leftovers of a killed save."""
  remove(folder)
  folder.mkdir()


def _allow_many_files() -> None:
  """Raises the limit of open files, usually 1024: each lane of a program holds a lock, which is an open file."""
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
  if soft != resource.RLIM_INFINITY and soft < wanted:
    with contextlib.suppress(OSError, ValueError):  # some systems have limits that they do not report
      resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _checksum_of(value: Any) -> str:
  return hashlib.sha256(canonical_json(value).encode()).hexdigest()
