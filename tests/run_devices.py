"""Trains the same lanes on 1, 2, 4 and 8 simulated CPU devices; prints what came out as JSON. Run by test_cohort.py."""

import json

import jax
import numpy as np
from fed import RECIPE_READ
from tiny import LIGHT, RECIPE, alone, distances, equal_lanes, lanes_of, recipe_with, run

from finetune_wrappers.training import calibration, cohort, cohort_run
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.types import InputError

LAYOUTS = ((1, "vmap"), (2, "map"), (4, "vmap"), (8, "map"), (2, "data"), (3, "data"))
LANES = 5  # no multiple of 2, 4 or 8


def round_trips(program):
  """Whether 1 to 9 lanes come back from the devices as they went."""
  laid = [(n, program.layout.lay_out(np.arange(n))) for n in range(1, 10)]
  shapes = all(x.shape[0] == program.layout.devices for _, x in laid)
  return shapes and all(np.array_equal(program.layout.gather(x, n), np.arange(n)) for n, x in laid)


def resumed(layout, lanes, params):
  """(programs compiled by three parts after a checkpoint, whether they end as a run does that was not stopped)."""
  keys, arrays = list("abcde"), cohort.lane_arrays(lanes)
  whole = cohort_run.CohortRun(cohort.Cohort(LIGHT, RECIPE, layout), keys, arrays)
  whole.begin(params, 0, [])
  whole._advance(5)
  kept = jax.tree.map(np.array, whole.checkpoint())
  again = cohort_run.CohortRun(cohort.Cohort(LIGHT, RECIPE, layout), keys, arrays)
  again.begin(params, 5, [jax.tree.map(lambda x, i=i: x[i], kept) for i in range(LANES)])
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
  )
  for stop in (10, 15, 20):
    again._advance(stop)
  found = len(compiled)
  jax.monitoring.clear_event_listeners()
  whole._advance(20)
  pairs = zip(jax.tree.leaves(whole.results()), jax.tree.leaves(again.results()), strict=True)
  return found, all(np.array_equal(a, b) for a, b in pairs)


def refusal(call):
  try:
    call()
  except InputError as error:
    return str(error)
  return ""


def main():
  jax.config.update("jax_num_cpu_devices", 8)  # before anything asks for a device
  lanes, params = lanes_of(0, LANES, LIGHT)
  others, other_params = lanes_of(1, LANES, LIGHT)
  lone = alone(lanes, params, LIGHT)
  results = {}
  for devices, inner in LAYOUTS:
    program = cohort.Cohort(LIGHT, RECIPE, Layout(devices, inner))
    state, metrics = run(program, lanes, params)
    kept = (0, LANES - 1)
    mixed = [(lanes[i], params[i]) if i in kept else (others[i], other_params[i]) for i in range(LANES)]
    again = run(program, *map(list, zip(*mixed, strict=True)))
    results[f"{devices}x{inner}"] = {
      "distances": distances(state.trained, lone.trained).tolist(),
      "losses": state.loss.tolist(),
      "equal_beside_others": equal_lanes((state, metrics), again),
      "shape": list(metrics.shape),
      "round_trips": round_trips(program),
      "resumed": resumed(Layout(devices, inner), lanes, params),
      "fed": equal_lanes(
        run(cohort.Cohort(LIGHT, RECIPE_READ, Layout(devices, inner)), lanes, params), (state, metrics)
      ),
    }
  even = recipe_with(batch_size=8).optimizer
  candidates = {n: [[x.devices, x.inner] for x in calibration.candidate_layouts(n, even)] for n in (1, 4, 5, 8, 16)}
  found = {"results": results, "losses": lone.loss.tolist(), "candidates": candidates}
  found["refusal"] = refusal(lambda: Layout(9, "map"))
  found["batch_refusal"] = refusal(lambda: cohort.Cohort(LIGHT, RECIPE, Layout(4, "data")))
  print(json.dumps(found))


if __name__ == "__main__":
  main()
