"""A cache's folder, written beside its place and renamed when complete: it is there whole or not at all."""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Iterator
from typing import IO

from finetune_wrappers.types import InputError, require


def located(folder: str | os.PathLike) -> pathlib.Path:
  """The absolute path of a cache, `~` being the home folder. Raises InputError unless it is on this machine."""
  text = os.fspath(folder)
  require(bool(text) and "://" not in text, "cache", text, "a folder of this machine, which can be mapped into memory")
  return pathlib.Path(os.path.expanduser(text)).absolute()


@contextlib.contextmanager
def writing(folder: pathlib.Path) -> Iterator[None]:
  """Turns the errors of a full or read-only disk into an InputError of one line."""
  try:
    yield
  except OSError as error:
    why = "is full" if error.errno == errno.ENOSPC else f"cannot be written ({os.strerror(error.errno or errno.EIO)})"
    raise InputError(f"cache: {folder} {why}; use a writable folder with space left") from error


@contextlib.contextmanager
def temporary_beside(final: pathlib.Path) -> Iterator[pathlib.Path]:
  """An empty folder beside `final`, locked, and removed at the end if it is still there.

  Those that killed processes left for the same `final` are removed first.
  """
  folder, own = final, None
  try:
    with writing(final):
      final.parent.mkdir(parents=True, exist_ok=True)
      tidy(final)
      while own is None:
        folder = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}.tmp")
        folder.mkdir()
        own = _locked(folder)
    yield folder
  finally:
    if own is not None:
      shutil.rmtree(folder, ignore_errors=True)
      os.close(own)


def tidy(final: pathlib.Path) -> None:
  """Removes temporary folders of `final` that no process has locked, so that none is writing."""
  name = re.compile(rf"\.{re.escape(final.name)}\.[0-9a-f]{{12}}\.tmp")
  for folder in final.parent.iterdir():
    if name.fullmatch(folder.name) and (own := _locked(folder)) is not None:
      shutil.rmtree(folder, ignore_errors=True)
      os.close(own)


def _locked(folder: pathlib.Path) -> int | None:
  """Descriptor of a folder that is now locked; None if another process holds it or was faster and removed it."""
  try:
    own = os.open(folder, os.O_RDONLY)
  except OSError:
    return None
  with contextlib.suppress(OSError):
    fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if folder.exists():
      return own
  os.close(own)
  return None


def publish(temporary: pathlib.Path, *, final: pathlib.Path) -> None:
  """Renames the folder; if another process was faster, its folder stays."""
  try:
    temporary.rename(final)
  except OSError as error:
    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
      raise
    return
  parent = os.open(final.parent, os.O_RDONLY)
  try:
    os.fsync(parent)
  finally:
    os.close(parent)


def flush(file: IO[bytes]) -> None:
  """Writes what is buffered to the disk."""
  file.flush()
  os.fsync(file.fileno())
