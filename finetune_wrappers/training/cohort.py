"""Cohorts: lanes that share shapes and step counts, run as one compiled program.

A layout says how R lanes are laid over the hardware: `pmap` over `devices`, and on each device either
one lane after another (`map`) or side by side (`vmap`); or every lane on all devices, each with a part of the
batch (`data`). Within one layout a lane's numbers do not depend on what runs beside it; across layouts they
agree to rounding.
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune_wrappers.tasks.task import TARGETS, Task
from finetune_wrappers.training import hosts, step
from finetune_wrappers.training.optim import Recipe
from finetune_wrappers.types import Params, require

# A layout can gain a third; compiling it must cost less than a tenth of that.
_WORTH_CALIBRATING = 30.0

PRECISION = "highest"  # TF32 and bf16 break the counts of a compiled model

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


class Cohort:
  """One compiled program and the state of its lanes.

  Lanes are padded to a multiple of the devices by repeating the last; padding is dropped from everything
  that comes out.

  Args:
    model: Flax module with `answer_logits`.
    task: where strings come from.
    settings: shared by all lanes; its noise_std is the lanes' own.
    layout: how lanes are laid out.
  """

  def __init__(self, model: Any, task: Task, settings: Recipe, layout: Layout):
    if layout.inner == "data":
      _require_divides(settings, layout.devices)
    self.layout = layout
    self.settings = settings
    shard = (_AXIS, layout.devices) if layout.inner == "data" else None
    tests = step.test_sets(task, settings.eval_size)

    def advance_lane(state, lane, start, stop, since):
      state, asked = step.train(model, task, settings, lane, state, start, stop, shard), since >= 0
      metrics = jax.lax.cond(
        asked,
        lambda params: step.evaluate(model, task, tests, params),
        lambda _: jnp.zeros(len(step.METRICS)),
        state.params,
      )
      loss = state.loss / jnp.maximum(stop - since, 1)
      return state._replace(loss=jnp.where(asked, 0.0, state.loss)), (metrics, loss)

    def init_lane(params, lane):
      return step.init_state(settings, params, lane)

    self._advance = self._spread(advance_lane, lanes=2, scalars=3)
    self._init = self._spread(init_lane, lanes=2, scalars=0)

  def _spread(self, one_lane, *, lanes: int, scalars: int):
    """one_lane over [devices, lanes per device, ...]; the first argument's memory is reused."""

    def on_device(*args):
      shared = args[lanes:]
      if self.layout.inner == "vmap":
        return jax.vmap(lambda *lane: one_lane(*lane, *shared))(*args[:lanes])
      return jax.lax.map(lambda lane: one_lane(*lane, *shared), args[:lanes])

    axes = (0,) * lanes + (None,) * scalars
    donated = (0,) if scalars else ()
    devices = hosts.devices(self.layout.devices)
    return jax.pmap(on_device, _AXIS, in_axes=axes, donate_argnums=donated, devices=devices)

  def init(self, params: Sequence[Params], lane: step.Lane) -> step.LaneState:
    """States of R lanes from R parameter pytrees, laid out over the devices."""
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *params)
    with jax.default_matmul_precision(PRECISION):
      return self._init(self.lay_out(stacked), self.lay_out(lane))

  def advance(self, state, lane: step.Lane, start: int, stop: int, since: int | None = None):
    """Trains steps start..stop-1 and, if asked, answers the test sets.

    Where a run is cut into parts changes nothing, to the bit.

    Args:
      state: laid out, donated.
      lane: laid out.
      start: first step.
      stop: one past the last.
      since: the step of the last evaluation, for the mean loss from there on; None does not evaluate.

    Returns:
      (state, (metrics [devices, R / devices, len(METRICS)], mean loss [devices, R / devices])), laid out; still being
      computed when this returns. Metrics and loss mean nothing where `since` is None.
    """
    with jax.default_matmul_precision(PRECISION):
      return self._advance(state, lane, jnp.int32(start), jnp.int32(stop), jnp.int32(-1 if since is None else since))

  def memory(self, params: Sequence[Params], lane: step.Lane) -> int:
    """Bytes that training these R lanes takes on each device: weights, optimizer and what a step computes."""
    laid = self.lay_out(lane)
    state = jax.eval_shape(lambda: self.init(params, lane))
    with jax.default_matmul_precision(PRECISION):
      program = self._advance.lower(state, laid, jnp.int32(0), jnp.int32(1), jnp.int32(0)).compile()
    used = program.memory_analysis()
    return used.argument_size_in_bytes + used.temp_size_in_bytes

  def lay_out(self, tree):
    """[R, ...] to [devices of this host, lanes a device, ...], padded with the last lane; `data`: all lanes on each."""
    devices = self.layout.devices

    def lay(x):
      x = np.asarray(x)
      if self.layout.inner == "data":
        laid = np.broadcast_to(x, (devices, *x.shape))
      else:
        laid = np.concatenate([x, *[x[-1:]] * (-len(x) % devices)]).reshape(devices, -1, *x.shape[1:])
      return hosts.own_part(laid)

    return jax.tree.map(lay, tree)

  def gather(self, tree, lanes: int):
    """The reverse of `lay_out`, on every host, padding dropped."""
    if self.layout.inner == "data":
      return jax.tree.map(lambda x: np.asarray(x)[0], jax.device_get(tree))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:lanes], hosts.from_all(tree))


def _require_divides(settings: Recipe, devices: int) -> None:
  parts = devices * settings.microbatches
  allowed = f"a divisor of batch_size / microbatches ({settings.batch_size} / {settings.microbatches}) for inner = data"
  require(settings.batch_size % parts == 0, "layout.devices", devices, allowed)


def out_of_memory(error: Exception) -> bool:
  """Whether a device, or the machine, had too little."""
  return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def device_memory() -> int | None:
  """Bytes of a device that programs can have; None where the device does not say, as on a CPU."""
  stats = jax.local_devices()[0].memory_stats()
  return stats.get("bytes_limit") if stats else None


def lane_arrays(lanes: Sequence[step.Lane]) -> step.Lane:
  """R lanes of Python numbers as one of arrays [R], with `target` a name of `TARGETS`."""
  return step.Lane(
    learning_rate=np.array([lane.learning_rate for lane in lanes], np.float32),
    c_tr=np.array([lane.c_tr for lane in lanes], np.float32),
    stream=np.array([lane.stream for lane in lanes], np.uint32),
    target=np.array([TARGETS.index(lane.target) for lane in lanes], np.int32),
    noise_std=np.array([lane.noise_std for lane in lanes], np.float32),
    prior=np.array([lane.prior for lane in lanes], np.float32),
    mix=np.array([lane.mix for lane in lanes], np.float32),
  )


def candidate_layouts(lanes: int, settings: Recipe) -> list[Layout]:
  """Layouts worth timing for that many lanes on the devices at hand."""
  hosts_, most = jax.process_count(), jax.device_count()
  devices = min(most, -(-lanes // hosts_) * hosts_)
  layouts = [Layout(devices, "map")]
  if lanes > devices:
    layouts.append(Layout(devices, "vmap"))
  if devices > 1 and hosts_ == 1:
    layouts.append(Layout(1, "vmap"))
  if 2 * lanes <= most and settings.batch_size % (most * settings.microbatches) == 0:
    layouts.append(Layout(most, "data"))
  return layouts


def calibrate(
  make, params: Sequence[Params], lane: step.Lane, settings: Recipe, *, lane_steps: int, seconds: float = 1.0
) -> tuple[Layout, dict]:
  """Times candidate layouts for a moment each and returns the fastest.

  Every further layout costs a compilation; where that is long beside all the training there is to do, the first
  is taken as it is. One that does not fit into memory is passed over.

  Args:
    make: Layout -> Cohort.
    params: R parameter pytrees.
    lane: R lanes.
    settings: shared by all lanes.
    lane_steps: how many will be trained.
    seconds: time spent on each, compilation not counted.

  Returns:
    (fastest layout, {"<devices>x<inner>": lane-steps per second}).
  """
  lanes = len(params)
  rates, error = {}, None
  for layout in candidate_layouts(lanes, settings):
    try:
      found = timed(make(layout), params, lane, seconds)
    except jax.errors.JaxRuntimeError as raised:
      if not out_of_memory(raised):
        raise
      error = raised
      continue
    rates[layout] = lanes / found["step_seconds"]
    if not worth_calibrating(lane_steps, rates[layout], found["compile_seconds"]):
      break
  if not rates and error:
    raise error
  fastest = max(rates, key=lambda layout: rates[layout])
  return fastest, {f"{layout.devices}x{layout.inner}": rate for layout, rate in rates.items()}


def worth_calibrating(lane_steps: int, rate: float, compile_seconds: float) -> bool:
  """Whether so many lane-steps, at `rate` a second, are enough to compile and time another layout."""
  return lane_steps / rate >= _WORTH_CALIBRATING * compile_seconds


def timed(program: Cohort, params: Sequence[Params], lane: step.Lane, seconds: float) -> dict[str, float]:
  """How long that program of R lanes takes.

  Args:
    program: of this layout.
    params: R parameter pytrees.
    lane: R lanes.
    seconds: time to spend on steps, compilation not counted.

  Returns:
    `compile_seconds`, `step_seconds` of all lanes, and `eval_seconds` for both test sets of all lanes.
  """
  begun = time.perf_counter()
  advance = functools.partial(_timed_advance, program, program.lay_out(lane))
  state, _ = advance(program.init(params, lane), 1, None)
  compile_seconds = time.perf_counter() - begun
  state, once = advance(state, 1, None)
  steps = hosts.agree(lambda: max(1, min(500, int(seconds / max(once, 1e-4)))))
  state, elapsed = advance(state, steps, None)
  _, with_eval = advance(state, steps, 0)
  evaluation = max(with_eval - elapsed, 0.0)
  return hosts.agree(
    lambda: {"compile_seconds": compile_seconds, "step_seconds": elapsed / steps, "eval_seconds": evaluation}
  )


def _timed_advance(program: Cohort, laid, state, steps: int, since: int | None):
  begin = time.perf_counter()
  state, measured = program.advance(state, laid, 0, steps, since)
  jax.block_until_ready((state, measured))
  return state, time.perf_counter() - begin
