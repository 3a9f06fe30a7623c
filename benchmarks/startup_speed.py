"""Time until something happens: importing, --help, and a first step at the PCFG quick size, compiled or read.

    python -m benchmarks.startup_speed [--turns=3]

Each is a process of its own, and what counts is its CPU time. A first step is 1 step of fine-tuning by a Cohort and
its evaluation of the test sets: compiled without the persistent cache, compiled and kept (`cold`), and read by a second
start (`warm`); the turns go through all of them, each with a folder of its own.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile

from absl import app

from benchmarks.turns import TURNS

_FIRST_STEP = """
import sys, jax, numpy as np
from benchmarks.gpts import plan_of
from experiments import compiled
from finetune_wrappers.models import gpt
from finetune_wrappers.training.cohort import Cohort, lane_arrays
from finetune_wrappers.training.lanes import Layout
jax.config.update("jax_num_cpu_devices", 1)
plan = plan_of("quick")
arrays, facts = gpt.build(plan.init(0).model, 0)
stage = plan.finetunes()[0]
with compiled.reused(sys.argv[1], sys.argv[2]):
  program = Cohort(gpt.restore(facts), stage.recipe, Layout(1, "map"))
  lane = lane_arrays([stage.lane])
  state, laid = program.init([arrays["params"]], lane), program.layout.lay_out(lane)
  jax.block_until_ready(program.advance(state, laid, start=0, stop=1, since=0))
"""


def commands(workdir: str) -> dict[str, list[str]]:
  """By name, in an order in which `warm` follows `cold`."""
  return {
    "import jax": ["-c", "import jax"],
    "import experiments.runner": ["-c", "import experiments.runner"],
    "--help": ["-m", "experiments.main", "--help"],
    "first step, no cache": ["-c", _FIRST_STEP, "off", workdir],
    "first step, cold cache": ["-c", _FIRST_STEP, "on", workdir],
    "first step, warm cache": ["-c", _FIRST_STEP, "on", workdir],
  }


def seconds(command: list[str]) -> float:
  """CPU time of a process with those arguments to Python."""
  environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  fatal = "--help" not in command  # which absl ends with exit code 1
  subprocess.run([sys.executable, *command], env=environment, check=fatal, capture_output=True)
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(_) -> None:
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  times: dict[str, list[float]] = {}
  for _ in range(TURNS.value):
    with tempfile.TemporaryDirectory() as workdir:
      for name, command in commands(workdir).items():
        times.setdefault(name, []).append(seconds(command))
  print("| process, one core | CPU time, s |\n|---|---|")
  for name, values in times.items():
    print(f"| {name} | {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}) |")


if __name__ == "__main__":
  app.run(main)
