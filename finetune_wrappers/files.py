"""Files and folders wherever etils can write: of this machine, or `gs://` and the like."""

import contextlib
import os
import uuid

from etils import epath


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
