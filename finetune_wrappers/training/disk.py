"""Arrays on disk, with separate errors for a damaged folder, an unreadable one, and a full or read-only disk."""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from finetune_wrappers.files import MISSING, unreadable
from finetune_wrappers.types import InputError

OTHER_CONTENTS = "contents do not match its description"


class Damaged(Exception):
  """A folder is truncated, changed or foreign; the text says how this was found."""


def load_arrays(folder: epath.Path) -> Any:
  """Reads a pytree of NumPy arrays with Orbax. Every host must call this."""
  return jax.tree.map(np.asarray, ocp.load(folder))


def checksum(arrays: Any) -> str:
  """SHA-256 over the names, shapes, dtypes and bytes of a pytree of arrays."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
    leaf = np.ascontiguousarray(leaf)
    digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()


@contextlib.contextmanager
def reading(folder: epath.Path, kind: str) -> Iterator[None]:
  """Turns errors of reading into Damaged or InputError.

  Args:
    folder: holds everything that is read.
    kind: its name in messages, such as `stage`.

  Raises:
    Damaged: if the folder is truncated, changed or foreign.
    InputError: if a file cannot be read, for example without permission.
  """
  try:
    yield
  except (Damaged, MemoryError, jax.errors.JaxRuntimeError):
    raise
  except Exception as error:  # Orbax and TensorStore raise many types for a damaged folder
    blocked = error if isinstance(error, OSError) and error.errno not in MISSING else unreadable(folder)
    if blocked or _number_of(error) not in (None, *MISSING):
      why = type(blocked or error).__name__
      raise InputError(f"workdir: {kind} {folder} cannot be read ({why}); mend that first") from error
    raise Damaged(type(error).__name__) from error


@contextlib.contextmanager
def writing(root: epath.Path) -> Iterator[None]:
  """Turns the errors of a full or read-only disk into an InputError of one line."""
  try:
    yield
  except (OSError, ValueError) as error:
    number = _number_of(error)
    if number is None and isinstance(error, ValueError):
      raise
    reason = "is full" if number == errno.ENOSPC else f"cannot be written ({os.strerror(number or errno.EIO)})"
    raise InputError(f"workdir: {root} {reason}; use a writable folder with space left") from error


def _number_of(error: Exception) -> int | None:
  """The system's error number, or None; TensorStore gives it only in its message."""
  if isinstance(error, OSError):
    return error.errno
  found = re.search(r"os_error_code='(\d+)'", str(error))
  return int(found.group(1)) if found else None
