"""The stage store: finished stages, on disk, by content.

    workdir/stages/<key>/arrays/      Orbax: parameters and curves
    workdir/stages/<key>/stage.json   what the stage is, versions, checksums
    workdir/cohorts/                  see `checkpoints`
    workdir/damaged/                  what `set_aside` moved out of the way
    workdir/locks/<key>.lock          held while a stage is trained, so two processes do not train it twice

A folder is written under another name and renamed when complete: it is there whole or not at all.
The workdir may be any path that etils knows, such as `gs://bucket/runs` (which needs gcsfs, and was never tried). Locks
are the file system's: where it has none, one command at a time may use a workdir.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
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
from finetune_wrappers.types import InputError, canonical_json

_FILES = 2**16  # open at once
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what file systems without them say


class DamagedStage(InputError):
  """A stage is truncated, changed or not ours.

  Attributes:
    what: the message without advice.
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
    is_local: whether it is a folder of a file system, with locks and renaming.

  Raises:
    InputError: if it cannot be written.
  """

  def __init__(self, workdir: str | os.PathLike):
    self.root = located(workdir)
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
    """Whether the stage of that key is finished."""
    return (self.root / "stages" / key / "stage.json").exists()

  def save(self, stage: Stage, arrays: Any, facts: dict[str, Any]) -> None:
    """Publishes a finished stage; keeps the one that is there if another process was faster.

    Several hosts call this together.

    Args:
      stage: its description.
      arrays: pytree of NumPy or JAX arrays.
      facts: JSON values to keep with it (versions, layout, labels, ...).
    """
    arrays = jax.tree.map(np.asarray, arrays)
    facts = json.loads(json.dumps(facts))  # as they will be read: names are text
    told = {"stage": describe(stage), "checksum": checksum(arrays), "facts": facts}
    record = {**told, "facts_checksum": _checksum_of(facts)}
    final = self._folder(stage)
    # An object store has no renaming of folders: there, stage.json, the last to be written, is what makes a stage.
    own = hosts.agree(lambda: uuid.uuid4().hex[:12])  # processes of two containers may have one number
    temporary = final.with_name(f".{final.name}-{own}") if self.is_local else final
    try:
      with writing(self.root):
        hosts.on_first(lambda: _begin(temporary))
        ocp.save(temporary / "arrays", arrays)
        hosts.on_first(lambda: self._publish(stage, temporary, json.dumps(record, indent=1, sort_keys=True)))
    except InputError:
      if self.is_local and hosts.is_first():
        remove(temporary)  # on a full disk every try would leave another
      raise

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
      moved = self._move_aside(stage)  # somebody copied or deleted a part of it
      logging.warning("workdir: stage %s had no stage.json and is now %s", self._folder(stage), moved)
      temporary.rename(self._folder(stage))

  def load(self, stage: Stage) -> tuple[Any, dict[str, Any]]:
    """(arrays, facts) of a finished stage.

    Raises:
      DamagedStage: if the folder is truncated, changed or not ours.
      InputError: if it cannot be read.
    """
    with self._reading(stage) as folder:
      record = self._record(stage)
      arrays = load_arrays(folder / "arrays")
      if record["checksum"] != checksum(arrays):
        raise Damaged(OTHER_CONTENTS)
    return arrays, record["facts"]

  def facts(self, stage: Stage) -> dict[str, Any]:
    """What was kept with a finished stage, without reading its arrays.

    Raises:
      DamagedStage: if the folder is truncated or not ours.
      InputError: if it cannot be read.
    """
    with self._reading(stage):
      return self._record(stage)["facts"]

  def _record(self, stage: Stage) -> dict[str, Any]:
    """What stage.json says, with all its parts."""
    record = json.loads((self._folder(stage) / "stage.json").read_text())
    if record["stage"] != json.loads(json.dumps(describe(stage))):
      raise Damaged(OTHER_CONTENTS)
    expected = _checksum_of(record["facts"])
    if record.get("facts_checksum", expected) != expected:  # the first of results/models have none
      raise Damaged(OTHER_CONTENTS)
    return {name: record[name] for name in ("checksum", "facts")}

  @contextlib.contextmanager
  def _reading(self, stage: Stage) -> Iterator[epath.Path]:
    """Tells a folder that is damaged from one that cannot be read."""
    folder = self._folder(stage)
    try:
      with reading(folder, "stage"):
        yield folder
    except Damaged as error:
      raise DamagedStage(folder, str(error)) from error

  def damage(self, stage: Stage) -> DamagedStage | None:
    """What is wrong with the stage, if it is there and not whole.

    Raises:
      InputError: if it cannot be read.
    """
    try:
      if self.has(stage):
        self.load(stage)
    except DamagedStage as error:
      return error
    return None

  def set_aside(self, stage: Stage) -> epath.Path | None:
    """Moves a damaged stage to `workdir/damaged`, so that it is trained again and nothing is lost.

    Returns:
      Where it is now; None if it was not damaged, or another process is at it.

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
    """Holds these keys of stages against other processes; the system frees them if we are killed.

    Yields:
      Whether they are held; nothing is if another process holds one of them.
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
    """Removes what killed saves of finished stages left."""
    with writing(self.root):
      for folder in list((self.root / "stages").iterdir()):
        hidden, _, key = folder.name.partition(".")
        if not hidden and self.has_key(key.partition("-")[0]):
          remove(folder)

  def remember(self, name: str, value: Any) -> None:
    """Keeps a small JSON value, such as the layout that was fastest."""
    path = self.root / "locks" / f"{name}.json"
    record = {"value": value, "checksum": _checksum_of(value)}
    with writing(self.root):
      write_atomically(path, json.dumps(record, sort_keys=True).encode())

  def recall(self, name: str) -> Any:
    """What `remember` kept, or None if that is nothing or damaged."""
    path = self.root / "locks" / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
      record = json.loads(path.read_text())
      if record["checksum"] == _checksum_of(record["value"]):
        return record["value"]
    return None


def _begin(folder: epath.Path) -> None:
  """Empty; an object store may have what a killed save left."""
  remove(folder)
  folder.mkdir()


def _allow_many_files() -> None:
  """Every lane of a program has a lock, which is an open file; the usual limit is 1024."""
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
  if soft != resource.RLIM_INFINITY and soft < wanted:
    with contextlib.suppress(OSError, ValueError):  # some systems have limits that they do not tell
      resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _checksum_of(value: Any) -> str:
  return hashlib.sha256(canonical_json(value).encode()).hexdigest()
