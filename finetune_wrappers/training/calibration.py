"""Which layout trains a cohort fastest on the devices at hand: a moment of each is timed."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from finetune_wrappers.training import hosts, step
from finetune_wrappers.training.cohort import Cohort
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.optim import Optimizer
from finetune_wrappers.types import Params

# A layout can gain a third; compiling it must cost less than a tenth of that.
_WORTH_CALIBRATING = 30.0


def out_of_memory(error: Exception) -> bool:
  """Whether a device, or the machine, had too little."""
  return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def device_memory() -> int | None:
  """Bytes of a device that programs can have; None where the device does not say, as on a CPU."""
  stats = jax.local_devices()[0].memory_stats()
  return stats.get("bytes_limit") if stats else None


def candidate_layouts(lanes: int, optimizer: Optimizer) -> list[Layout]:
  """Layouts worth timing for that many lanes on the devices at hand."""
  hosts_, most = jax.process_count(), jax.device_count()
  devices = min(most, -(-lanes // hosts_) * hosts_)
  layouts = [Layout(devices, "map")]
  if lanes > devices:
    layouts.append(Layout(devices, "vmap"))
  if devices > 1 and hosts_ == 1:
    layouts.append(Layout(1, "vmap"))
  if 2 * lanes <= most and optimizer.batch_size % (most * optimizer.microbatches) == 0:
    layouts.append(Layout(most, "data"))
  return layouts


def calibrate(
  make: Callable[[Layout], Cohort],
  params: Sequence[Params],
  lane: step.Lane,
  optimizer: Optimizer,
  *,
  lane_steps: int,
  seconds: float = 1.0,
) -> tuple[Layout, dict[str, float]]:
  """Times candidate layouts for a moment each and returns the fastest.

  Every further layout costs a compilation; where that is long beside all the training there is to do, the first
  is taken as it is. One that does not fit into memory is passed over.

  Args:
    make: Layout -> Cohort.
    params: R parameter pytrees.
    lane: R lanes.
    optimizer: shared by all lanes.
    lane_steps: how many will be trained.
    seconds: time spent on each, compilation not counted.

  Returns:
    (fastest layout, {"<devices>x<inner>": lane-steps per second}).
  """
  lanes = len(params)
  rates, error = {}, None
  for layout in candidate_layouts(lanes, optimizer):
    try:
      found = timed(make(layout), params, lane, seconds)
    except jax.errors.JaxRuntimeError as raised:
      if not out_of_memory(raised):
        raise
      error = raised
      continue
    rates[layout] = lanes / found["step_seconds"]
    if not worth_calibrating(lane_steps, rate=rates[layout], compile_seconds=found["compile_seconds"]):
      break
  if not rates and error:
    raise error
  fastest = max(rates, key=lambda layout: rates[layout])
  return fastest, {f"{layout.devices}x{layout.inner}": rate for layout, rate in rates.items()}


def worth_calibrating(lane_steps: int, *, rate: float, compile_seconds: float) -> bool:
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
    `compile_seconds`, `step_seconds` of all lanes, and `eval_seconds` for the test sets of all lanes.
  """
  begun = time.perf_counter()
  advance = functools.partial(_timed_advance, program, program.layout.lay_out(lane))
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


def _timed_advance(program: Cohort, laid: Any, state: Any, steps: int, since: int | None):
  begin = time.perf_counter()
  state, measured = program.advance(state, laid, start=0, stop=steps, since=since)
  jax.block_until_ready((state, measured))
  return state, time.perf_counter() - begin
