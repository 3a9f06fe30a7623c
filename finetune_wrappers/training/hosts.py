"""Several hosts that run one command together: what the first decides all do, what each has all get.

With one host, which is what `jax.distributed.initialize` was not called for, everything here does nothing.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from finetune_wrappers.types import InputError


def is_first() -> bool:
  """Whether this host writes and decides."""
  return jax.process_index() == 0


def agree(decide: Callable[[], Any]) -> Any:
  """What `decide` returns on the first host, on every host; called there only.

  Args:
    decide: returns JSON values; with one host, anything.

  Raises:
    InputError: on every host, if `decide` does.
    OSError: likewise.
  """
  if jax.process_count() == 1:
    return decide()
  said = json.dumps(_outcome(decide)).encode() if is_first() else b""
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(said))))
  padded = np.zeros(size, np.uint8)
  padded[: len(said)] = np.frombuffer(said, np.uint8)
  heard = json.loads(bytes(multihost_utils.broadcast_one_to_all(padded)))
  if "errno" in heard:
    raise OSError(heard["errno"], heard["error"])
  if "error" in heard:
    raise InputError(heard["error"])
  return heard["value"]


def on_first(action: Callable[[], None]) -> None:
  """Does it on the first host; the others wait until it is done.

  Raises:
    InputError: on every host, if `action` does.
    OSError: likewise.
  """
  agree(action)


def _outcome(decide: Callable[[], Any]) -> dict[str, Any]:
  try:
    return {"value": decide()}
  except InputError as error:  # the others would wait for this host
    return {"error": str(error)}
  except OSError as error:  # a disk that is full, say
    return {"errno": error.errno, "error": str(error)}


def wait() -> None:
  """Until every host is here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices("finetune_wrappers")


def from_all(tree: Any) -> Any:
  """Arrays [devices of this host, ...] as [devices of all hosts, ...], on every host."""
  host = jax.tree.map(np.asarray, jax.device_get(tree))
  return host if jax.process_count() == 1 else multihost_utils.process_allgather(host, tiled=True)


def devices(number: int) -> list[Any]:
  """That many devices, as many of each host, hosts one after another."""
  each = number // jax.process_count()
  by_host = [[d for d in jax.devices() if d.process_index == host] for host in range(jax.process_count())]
  return [device for own in by_host for device in own[:each]]


def own_part(x: np.ndarray) -> np.ndarray:
  """[devices of all hosts, ...] as [devices of this host, ...]."""
  each = len(x) // jax.process_count()
  return x[jax.process_index() * each :][:each]
