"""Files and folders wherever etils can write: of this machine, or `gs://` and the like."""

import contextlib
import errno
import os
import uuid

from etils import epath

MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)  # what reading a damaged folder may meet


def located(workdir: str | os.PathLike) -> epath.Path:
  """The workdir wherever it is, whole if it is a folder of this machine."""
  given = epath.Path(workdir)
  return given if "://" in str(given) else given.absolute()


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
  """Writes a file whole or not at all, by a temporary file beside it; makes its folder if missing.

  Raises:
    OSError: if it cannot be written; no temporary file is left.
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
  """Removes a folder and what is in it, if it is there."""
  with contextlib.suppress(OSError):
    folder.rmtree()


def unreadable(folder: epath.Path) -> OSError | None:
  """Why a file in there cannot be read, which Orbax may not say; None if all can, or some are missing."""
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
