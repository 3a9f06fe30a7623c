"""Trains the same lanes on 1, 2, 4 and 8 simulated CPU devices; prints what came out as JSON. Run by test_cohort.py."""

import json

import jax
import numpy as np
from tiny import LIGHT, SETTINGS, TASK, alone, distances, equal_lanes, lanes_of, run

from finetune_wrappers.training import cohort
from finetune_wrappers.types import InputError

LAYOUTS = ((1, "vmap"), (2, "map"), (4, "vmap"), (8, "map"))
LANES = 5  # no multiple of 2, 4 or 8


def round_trips(program):
  """Whether 1 to 9 lanes come back from the devices as they went."""
  laid = [(n, program.lay_out(np.arange(n))) for n in range(1, 10)]
  shapes = all(x.shape[0] == program.layout.devices for _, x in laid)
  return shapes and all(np.array_equal(program.gather(x, n), np.arange(n)) for n, x in laid)


def refuses_nine():
  try:
    cohort.Layout(9, "map")
  except InputError as error:
    return str(error)
  return ""


def main():
  jax.config.update("jax_num_cpu_devices", 8)  # before anything asks for a device
  lanes, params = lanes_of(0, LANES, LIGHT)
  others, other_params = lanes_of(1, LANES, LIGHT)
  lone = alone(lanes, params, LIGHT).params
  results = {}
  for devices, inner in LAYOUTS:
    program = cohort.Cohort(LIGHT, TASK, SETTINGS, cohort.Layout(devices, inner))
    state, metrics = run(program, lanes, params)
    kept = (0, LANES - 1)
    mixed = [(lanes[i], params[i]) if i in kept else (others[i], other_params[i]) for i in range(LANES)]
    again = run(program, *map(list, zip(*mixed, strict=True)))
    results[f"{devices}x{inner}"] = {
      "distances": distances(state.params, lone).tolist(),
      "equal_beside_others": equal_lanes((state, metrics), again),
      "shape": list(metrics.shape),
      "round_trips": round_trips(program),
    }
  layouts = {n: [[x.devices, x.inner] for x in cohort.candidate_layouts(n)] for n in (1, 5, 8, 16)}
  print(json.dumps({"results": results, "candidates": layouts, "refusal": refuses_nine()}))


if __name__ == "__main__":
  main()
