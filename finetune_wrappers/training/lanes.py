"""Lanes over devices: the only module that knows of `pmap`.

A layout says how R lanes are laid over the hardware: `pmap` over `devices`, and on each device either
one lane after another (`map`) or side by side (`vmap`); or every lane on all devices, each with a part of the
batch (`data`). Within one layout a lane's numbers do not depend on what runs beside it; across layouts they
agree to rounding.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from finetune_wrappers.models.model import Model
from finetune_wrappers.training import hosts
from finetune_wrappers.types import Params, require

INNER = ("map", "vmap", "data")
_AXIS = "devices"


@dataclasses.dataclass(frozen=True)
class Layout:
  """How lanes are laid over devices.

  Attributes:
    devices: number of devices, by pmap; of several hosts, as many of each.
    inner: `map` (one after another) or `vmap` (side by side) on each device, or `data`: one lane after another, on
      all devices at once, which take equal parts of its batch and the mean of their gradients.
  """

  devices: int
  inner: str

  def __post_init__(self):
    require(self.inner in INNER, "layout.inner", self.inner, ", ".join(INNER))
    least, most = jax.process_count(), jax.device_count()
    fine = least <= self.devices <= most and self.devices % least == 0
    each = "" if least == 1 else f", a multiple of {least}, the hosts"
    require(fine, "layout.devices", self.devices, f"{least} to {most}{each}")

  @property
  def shard(self) -> tuple[str, int] | None:
    """(axis, devices) over which a batch is parted; None where each device has whole batches."""
    return (_AXIS, self.devices) if self.inner == "data" else None

  def spread(self, one_lane: Callable, *, lanes: int, scalars: int) -> Callable:
    """`one_lane` as a compiled program over [devices, lanes a device, ...].

    Args:
      one_lane: a function of `lanes` arguments that each lane has its own of, then `scalars` that all share.
      lanes: how many of the first kind.
      scalars: how many of the second; with any, the first argument's memory is reused.
    """

    def on_device(*args):
      shared = args[lanes:]
      if self.inner == "vmap":
        return jax.vmap(lambda *lane: one_lane(*lane, *shared))(*args[:lanes])
      return jax.lax.map(lambda lane: one_lane(*lane, *shared), args[:lanes])

    axes = (0,) * lanes + (None,) * scalars
    donated = (0,) if scalars else ()
    return jax.pmap(on_device, _AXIS, in_axes=axes, donate_argnums=donated, devices=hosts.devices(self.devices))

  def lay_out(self, tree: Any) -> Any:
    """[R, ...] to [devices of this host, lanes a device, ...], padded with the last lane; `data`: all lanes on each."""

    def lay(x):
      x = np.asarray(x)
      if self.inner == "data":
        laid = np.broadcast_to(x, (self.devices, *x.shape))
      else:
        laid = np.concatenate([x, *[x[-1:]] * (-len(x) % self.devices)]).reshape(self.devices, -1, *x.shape[1:])
      return hosts.own_part(laid)

    return jax.tree.map(lay, tree)

  def gather(self, tree: Any, lanes: int) -> Any:
    """The reverse of `lay_out`, on every host, padding dropped."""
    if self.inner == "data":
      return jax.tree.map(lambda x: np.asarray(x)[0], jax.device_get(tree))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:lanes], hosts.from_all(tree))

  def lanes_a_device(self, lanes: int) -> int:
    """How many of R lanes each device has, padding among them: programs that agree in it compile once."""
    return lanes if self.inner == "data" else -(-lanes // self.devices)


def over_models(model: Model, function: Callable[[Params], Any], size: int) -> Callable[[Sequence[Params]], list[Any]]:
  """A measurement of one model as one compiled program for several at once.

  Models are lanes, as in training: spread over this host's devices, one after another on each.

  Args:
    model: of all of them; the program is traced and run at its precision.
    function: from a pytree of parameters to a pytree of arrays.
    size: lanes of the program; fewer models are padded with the last, and the padding is dropped.

  Returns:
    A function from at most `size` parameter pytrees of one shape to one result each, in NumPy.
  """
  devices = min(jax.local_device_count(), size)
  program = jax.pmap(lambda params: jax.lax.map(function, params), devices=jax.local_devices()[:devices])
  padded = -(-size // devices) * devices

  def measure(params: Sequence[Params]) -> list[Any]:
    lanes = [*params, *[params[-1]] * (padded - len(params))]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves).reshape(devices, -1, *leaves[0].shape), *lanes)
    with model.numerics():
      found = jax.device_get(program(stacked))
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
    return [jax.tree.map(lambda x, lane=lane: x[lane], flat) for lane in range(len(params))]

  return measure
