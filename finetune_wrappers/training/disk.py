"""Arrays on disk, and what can go wrong there told apart: damaged, unreadable, full, not to be written."""

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
  """A folder is truncated, changed or not ours; its text says how that showed."""


def load_arrays(folder: epath.Path) -> Any:
  """Reads a pytree of NumPy arrays with Orbax; of several hosts, by all of them together."""
  return jax.tree.map(np.asarray, ocp.load(folder))


def checksum(arrays: Any) -> str:
  """SHA-256 of names, shapes, types and bytes of a pytree of arrays."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
    leaf = np.ascontiguousarray(leaf)
    digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()


@contextlib.contextmanager
def reading(folder: epath.Path, kind: str) -> Iterator[None]:
  """Tells a folder that is damaged from one that cannot be read.

  Args:
    folder: all that is read.
    kind: what it is called in messages.

  Raises:
    Damaged: if it is truncated, changed or not ours.
    InputError: if the disk does not let it be read.
  """
  try:
    yield
  except (Damaged, MemoryError, jax.errors.JaxRuntimeError):
    raise
  except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged folder
    blocked = error if isinstance(error, OSError) and error.errno not in MISSING else unreadable(folder)
    if blocked or _number_of(error) not in (None, *MISSING):
      why = type(blocked or error).__name__
      raise InputError(f"workdir: {kind} {folder} cannot be read ({why}); mend that first") from error
    raise Damaged(type(error).__name__) from error


@contextlib.contextmanager
def writing(root: epath.Path) -> Iterator[None]:
  """Turns a disk that cannot be written, or is full, into one line."""
  try:
    yield
  except (OSError, ValueError) as error:
    number = _number_of(error)
    if number is None and isinstance(error, ValueError):
      raise
    reason = "is full" if number == errno.ENOSPC else f"cannot be written ({os.strerror(number or errno.EIO)})"
    raise InputError(f"workdir: {root} {reason}; use a writable folder with space left") from error


def _number_of(error: Exception) -> int | None:
  """The system's error number; TensorStore keeps it only in its text."""
  if isinstance(error, OSError):
    return error.errno
  found = re.search(r"os_error_code='(\d+)'", str(error))
  return int(found.group(1)) if found else None
