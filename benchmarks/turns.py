"""What the benchmarks share: the cores they run on, sides that take turns, and PyTorch if it is installed."""

import importlib
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
from absl import flags

try:
  torch: Any = importlib.import_module("torch")
except ImportError:
  torch = None

TURNS = flags.DEFINE_integer("turns", 3, "Turns of each side.", lower_bound=1)


def use_cores(number: int) -> int:
  """Pins this process, PyTorch and, if it has not started yet, JAX to that many cores (0: all it may use).

  JAX gets one simulated device a core, as a run of an experiment does.

  Returns:
    How many there are.
  """
  cores = sorted(os.sched_getaffinity(0))
  cores = cores[: number or len(cores)]
  os.sched_setaffinity(0, cores)
  jax.config.update("jax_num_cpu_devices", len(cores))
  if torch is not None:
    torch.set_num_threads(len(cores))
  return len(cores)


def setting() -> str:
  """Versions, device and cores, for the line above a table."""
  cores = len(os.sched_getaffinity(0))
  versions = f"jax {jax.__version__}, {jax.local_devices()[0].device_kind}"
  if torch is not None:
    versions += f", torch {torch.__version__}"
  return f"{versions}, {cores} core{'s' * (cores > 1)}, float32"


def seconds_of(call: Callable[[], Any], repeats: int = 1) -> float:
  """CPU time of one call, of all threads of this process."""
  begin = time.process_time()
  for _ in range(repeats):
    call()
  return (time.process_time() - begin) / repeats


def in_turns(sides: dict[str, Callable[[], Any]], turns: int, seconds: float) -> dict[str, list[float]]:
  """CPU time of one call of each side, once for each turn.

  Args:
    sides: calls by name; each has been called before, so that nothing compiles here.
    turns: how often every side has its turn.
    seconds: length of a turn, or one call if that is longer.
  """
  repeats = {name: max(1, int(seconds / max(seconds_of(call), 1e-6))) for name, call in sides.items()}
  times: dict[str, list[float]] = {name: [] for name in sides}
  for _ in range(turns):
    for name, call in sides.items():
      times[name].append(seconds_of(call, repeats[name]))
  return times


def rows(label: str, times: dict[str, list[float]]) -> list[str]:
  """Lines of a table: label, side, median (range) in ms, and times the first side's median."""
  medians = {name: statistics.median(values) for name, values in times.items()}
  first = medians[next(iter(medians))]
  return [
    f"| {label} | {name} | {1e3 * median:.2f} ({1e3 * min(times[name]):.2f} to {1e3 * max(times[name]):.2f}) "
    f"| {median / first:.4g} |"
    for name, median in medians.items()
  ]
