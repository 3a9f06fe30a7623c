"""Goes on with eight lanes of test_loop's stages on some number of simulated devices; run by test_loop_devices.py.

Arguments: workdir, devices, how often the trainer asks whether to stop before it is told to. Prints the lane-steps that
were trained.
"""

import contextlib
import dataclasses
import sys

import jax


def lanes():
  import test_loop

  evaluated = (0, *range(5, 41, 5))
  optimizer = dataclasses.replace(test_loop.FINETUNE.optimizer, steps=40, eval_steps=evaluated)
  calm = dataclasses.replace(test_loop.FINETUNE, optimizer=optimizer, learning_rate=1e-4)  # rounding does not grow
  return [dataclasses.replace(calm, seed=seed) for seed in range(8)]


def main(workdir, devices, patience):
  jax.config.update("jax_num_cpu_devices", devices)
  import test_loop

  from finetune_wrappers.training import cohort_run
  from finetune_wrappers.training.failures import Interrupted
  from finetune_wrappers.training.lanes import Layout
  from finetune_wrappers.training.store import Store

  cohort_run._PART_SECONDS = 0  # parts of one step
  spans, left = test_loop.spy_on_advance(setattr), iter([False] * patience)
  options = {"layout": Layout(devices, "map"), "lanes_per_program": 8, "checkpoint_seconds": 1e9}
  with contextlib.suppress(Interrupted):
    test_loop.trainer(Store(workdir), **options, stopping=lambda: next(left, True)).run(lanes())
  print(8 * sum(stop - start for start, stop in spans))


if __name__ == "__main__":
  main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
