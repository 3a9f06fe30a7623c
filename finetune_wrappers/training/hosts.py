"""Several hosts that run one command together: the first host decides, and results are gathered on every host.

With one host (`jax.distributed.initialize` was not called) nothing is communicated.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from finetune_wrappers.types import InputError

T = TypeVar("T")


def is_first() -> bool:
  """Whether this is the host that writes and decides."""
  return jax.process_index() == 0


def agree(decide: Callable[[], Any]) -> Any:
  """Calls `decide` on the first host only and returns its result on every host.

  Args:
    decide: returns a JSON value; with one host, anything.

  Raises:
    InputError, OSError: on every host, if `decide` raises it.
    RuntimeError: on the other hosts, if `decide` raises anything else; the first host raises the error itself.
  """
  if jax.process_count() == 1:
    return decide()
  said, error = _outcome(decide) if is_first() else ({}, None)
  data = json.dumps(said).encode() if is_first() else b""
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
  padded = np.zeros(size, np.uint8)
  padded[: len(data)] = np.frombuffer(data, np.uint8)
  heard = json.loads(bytes(multihost_utils.broadcast_one_to_all(padded)))
  if error is not None:
    raise error
  if "error" in heard:
    raise _error_of(**heard)
  return heard["value"]


def on_first(action: Callable[[], None]) -> None:
  """Calls `action` on the first host; the others wait for it.

  Raises:
    InputError, OSError, RuntimeError: as `agree`.
  """
  agree(action)


def _outcome(decide: Callable[[], Any]) -> tuple[dict[str, Any], Exception | None]:
  """The message for the other hosts, which would else wait forever, and the error to raise on this one."""
  try:
    return {"value": decide()}, None
  except Exception as error:
    kind = InputError.__name__ if isinstance(error, InputError) else type(error).__name__
    return {"error": str(error), "kind": kind, "number": getattr(error, "errno", None)}, error


def _error_of(error: str, kind: str, number: int | None) -> Exception:
  if number is not None:
    return OSError(number, error)
  return InputError(error) if kind == InputError.__name__ else RuntimeError(f"the first host: {kind}: {error}")


def any_of(*flags: bool) -> tuple[bool, ...]:
  """For each flag, whether any host has set it; the same on every host."""
  if jax.process_count() == 1:
    return flags
  return tuple(map(bool, multihost_utils.process_allgather(np.asarray(flags)).any(axis=0)))


def together(action: Callable[[], T]) -> T:
  """Calls `action` on every host; if it fails on one, every host raises an error.

  Raises:
    InputError: on the hosts where `action` succeeded; the others raise its own error.
  """
  try:
    value, error = action(), None
  except Exception as raised:
    value, error = None, raised
  (failed,) = any_of(error is not None)
  if error is not None:
    raise error
  if failed:
    raise InputError("hosts: another host could not read the workdir; it says why")
  return cast(T, value)


def check_same(value: Any, what: str) -> None:
  """Raises InputError on every host if one has another JSON value than the first host."""
  differs = agree(lambda: value) != value
  if any(any_of(differs)):
    raise InputError(f"workdir: hosts see different {what} in it; use a file system that shows all the same")


def wait() -> None:
  """Waits until every host has called this."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices("finetune_wrappers")


def from_all(tree: Any) -> Any:
  """Gathers arrays [devices of this host, ...] into [devices of all hosts, ...], on every host."""
  host = jax.tree.map(np.asarray, jax.device_get(tree))
  return host if jax.process_count() == 1 else multihost_utils.process_allgather(host, tiled=True)


def devices(number: int) -> list[Any]:
  """`number` devices, equally many of each host, ordered by host."""
  each = number // jax.process_count()
  by_host = [[d for d in jax.devices() if d.process_index == host] for host in range(jax.process_count())]
  return [device for own in by_host for device in own[:each]]


def own_part(x: np.ndarray) -> np.ndarray:
  """Cuts this host's part, [devices of this host, ...], out of [devices of all hosts, ...]."""
  each = len(x) // jax.process_count()
  return x[jax.process_index() * each :][:each]
