"""Files and folders on any path that etils can write: local, or remote such as `gs://`."""

import contextlib
import errno
import fcntl
import os
import re
import uuid
from typing import IO

from etils import epath

from finetune_wrappers.types import InputError

MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)  # may be raised while reading a damaged folder


_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")


def located(workdir: str | os.PathLike) -> epath.Path:
  """The workdir as a path; absolute if local, with `~` as the home folder.

  Raises:
    InputError: for an empty path, a home folder that is not there, or a remote path whose package is missing.
  """
  text = os.fspath(workdir)
  if not text:
    raise InputError("workdir: empty; give a folder, or . for the current one")
  if "://" not in text:
    home = os.path.expanduser(text)
    if home.startswith("~"):
      raise InputError(f"workdir: {text} has no such home folder; use another, or ./ before a name that begins with ~")
    return epath.Path(home).absolute()
  try:
    given = epath.Path(text)
    given.exists()  # the package is asked for by the first use only
    return given
  except (KeyError, ImportError) as error:
    why = "no such kind of path" if isinstance(error, KeyError) else " ".join(str(error).split())
    raise InputError(f"workdir: {text} cannot be used ({why}); use a folder, or gs:// with gcsfs installed") from error


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
  """Writes a file whole or not at all, through a temporary file beside it; makes its folder if missing.

  Temporary files that killed processes left in the folder are removed.

  Raises:
    OSError: if the file cannot be written; no temporary file is left behind.
  """
  final = epath.Path(path)
  final.parent.mkdir(parents=True, exist_ok=True)
  local = "://" not in str(final)
  if local:
    _tidy(final.parent)
  while True:
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
      with temporary.open("wb") as file:
        if local and not _claimed(file, temporary):
          continue
        file.write(data)
        file.flush()
        if local:
          os.fsync(file.fileno())
          temporary.replace(final)
      if not local:
        temporary.replace(final)
      return
    finally:
      temporary.unlink(missing_ok=True)


def _claimed(file: IO, path: epath.Path) -> bool:
  """Locks a new file against `_tidy` of other processes; False if one of them was faster and removed it."""
  with contextlib.suppress(OSError):  # a file system without locks, where nothing is tidied either
    fcntl.flock(file, fcntl.LOCK_EX)
  return path.exists()


def _tidy(folder: epath.Path) -> None:
  """Removes temporary files that no process has locked, so that none is writing."""
  for path in folder.iterdir():
    if _TEMPORARY.fullmatch(path.name):
      with contextlib.suppress(OSError), path.open("rb") as file:  # locked, or gone by now
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)


def remove(folder: epath.Path) -> None:
  """Removes a folder and its contents; does nothing if it cannot."""
  with contextlib.suppress(OSError):
    folder.rmtree()


def unreadable(folder: epath.Path) -> OSError | None:
  """The error of reading the folder's files, which Orbax may hide; None if all can be read or one is missing."""
  try:
    for path in folder.iterdir():
      if path.is_dir():
        if found := unreadable(path):
          return found
      else:
        path.read_bytes()
  except OSError as error:
    return None if error.errno in MISSING else error
  return None
