"""Files and folders on any path that etils can write: local, or remote such as `gs://`."""

import contextlib
import errno
import os
import uuid

from etils import epath

MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)  # may be raised while reading a damaged folder


def located(workdir: str | os.PathLike) -> epath.Path:
  """The workdir as a path; absolute if local."""
  given = epath.Path(workdir)
  return given if "://" in str(given) else given.absolute()


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
  """Writes a file whole or not at all, through a temporary file beside it; makes its folder if missing.

  Raises:
    OSError: if the file cannot be written; no temporary file is left behind.
  """
  final = epath.Path(path)
  final.parent.mkdir(parents=True, exist_ok=True)
  temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}.tmp")
  try:
    with temporary.open("wb") as file:
      file.write(data)
      file.flush()
      if "://" not in str(final):
        os.fsync(file.fileno())
    temporary.replace(final)
  finally:
    temporary.unlink(missing_ok=True)


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
