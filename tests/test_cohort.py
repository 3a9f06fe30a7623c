"""Cohorts: a lane's numbers alone, beside others, cut into parts, diverging, and on several devices."""

import json
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from tiny import (
  MODEL,
  RECIPE,
  TASK,
  Light,
  alone,
  distances,
  equal_lanes,
  lane_of,
  lanes_of,
  run,
  start,
)

from finetune_wrappers.training import calibration, cohort
from finetune_wrappers.training.cohort import Cohort
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.provenance import precision_of
from finetune_wrappers.types import InputError

INNER = ("map", "vmap")
NUMBER = 3


@pytest.fixture(scope="module")
def programs():
  return {inner: Cohort(MODEL, RECIPE, Layout(1, inner)) for inner in INNER}


@pytest.fixture(scope="module")
def lone():
  return alone(*lanes_of(0, NUMBER))


def with_lane(lanes_and_params, index, lane, params):
  """The same cohort with one lane replaced."""
  lanes, all_params = (list(x) for x in lanes_and_params)
  lanes[index], all_params[index] = lane, params
  return lanes, all_params


@pytest.mark.parametrize("inner", INNER)
def test_a_lane_is_bit_equal_whatever_runs_beside_it(programs, inner):
  mine, theirs = lanes_of(0, NUMBER), lanes_of(1, NUMBER)
  expected = run(programs[inner], *mine)
  for index in range(NUMBER):
    among_others = with_lane(theirs, index, mine[0][index], mine[1][index])
    equal = equal_lanes(run(programs[inner], *among_others), expected)
    assert equal == [other == index for other in range(NUMBER)]


@pytest.mark.parametrize("inner", INNER)
def test_the_first_20_updates_are_those_of_the_lane_alone(programs, lone, inner):
  lanes, params = lanes_of(0, NUMBER)
  state, metrics = run(programs[inner], lanes, params)
  assert distances(state.trained, lone.trained).max() < 1e-6
  np.testing.assert_allclose(state.loss, lone.loss, rtol=1e-6)
  assert np.all(distances(state.trained, jax.tree.map(lambda *x: np.stack(x), *params)) > 1e-4), "they did train"
  tests = RECIPE.evaluator.test_sets(TASK)
  answer = jax.jit(lambda params: RECIPE.evaluator.measure(MODEL, params, TASK, tests))
  expected = [answer(jax.tree.map(lambda x, i=i: x[i], lone.trained)) for i in range(NUMBER)]
  np.testing.assert_array_equal(metrics, expected)


def test_stopping_on_the_way_changes_nothing_and_each_part_has_its_own_mean_loss(programs):
  lanes, params = lanes_of(0, NUMBER)
  whole = run(programs["map"], lanes, params)
  parts = [run(programs["map"], lanes, params, stops) for stops in ((5,), (5, 20))]
  assert (
    equal_lanes((whole[0].trained, whole[0].optimizer), (parts[1][0].trained, parts[1][0].optimizer)) == [True] * NUMBER
  )
  np.testing.assert_array_equal(whole[1], parts[1][1])
  np.testing.assert_allclose(whole[0].loss, (5 * parts[0][0].loss + 15 * parts[1][0].loss) / 20, rtol=1e-5)


@pytest.mark.parametrize("inner", INNER)
def test_a_lane_that_diverges_says_when_and_harms_no_other(programs, inner):
  healthy = lanes_of(0, NUMBER)
  doomed = with_lane(healthy, 1, healthy[0][1] | {"learning_rate": np.float32(1e30)}, healthy[1][1])
  expected, (state, metrics) = run(programs[inner], *healthy), run(programs[inner], *doomed)
  assert equal_lanes((state, metrics), expected) == [True, False, True]
  losses = [run(programs[inner], *doomed, range(1, stop + 1))[0].loss[1] for stop in range(1, 7)]
  first = np.isfinite(losses).argmin()
  assert first > 0 and state.diverged_step.tolist() == [-1, first, -1]
  assert expected[0].diverged_step.tolist() == [-1, -1, -1]


def test_a_lane_starts_from_its_parents_weights_with_noise_of_its_width_and_stream():
  params = [{"a": {"kernel": np.full((30, 30), float(i), np.float32)}} for i in range(4)]
  lanes = [lane_of(stream=stream, noise_std=std) for stream, std in ((1, 0.1), (1, 0.1), (2, 0.1), (1, 0.0))]
  program = Cohort(MODEL, RECIPE._replace(traced=(*RECIPE.traced, "noise_std")), Layout(1, "vmap"))
  state = program.layout.gather(program.init(params, cohort.lane_arrays(lanes)), 4)
  first, same, other, none = (state.trained["a"]["kernel"] - np.arange(4)[:, None, None]).reshape(4, -1)
  np.testing.assert_allclose(first, same, atol=1e-6)
  assert abs(np.corrcoef(first, other)[0, 1]) < 0.14 and first.std() == pytest.approx(0.1, rel=0.1)
  assert not none.any() and not state.optimizer[1].trace["a"]["kernel"].any()
  assert state.diverged_step.tolist() == [-1] * 4


@pytest.mark.parametrize("precision", ["highest", "tensorfloat32", None])
def test_training_and_answering_use_the_models_precision(precision):
  seen = []

  class Watched(Light):
    def answer(self, *args):
      seen.append(jax.config.jax_default_matmul_precision)
      return super().answer(*args)

  watched = Watched()
  watched.precision = precision
  lanes, params = lanes_of(0, 1, watched)
  run(Cohort(watched, RECIPE, Layout(1, "map")), lanes, params, stops=(1,))
  assert set(seen) == {precision} and len(seen) >= 3  # once to train, once for each test set
  assert precision_of(watched) == (precision or "default")
  with jax.default_matmul_precision("bfloat16"):
    assert precision_of(watched) == (precision or "bfloat16"), "JAX's own setting, where the model has none"


def test_lanes_become_arrays():
  arrays = cohort.lane_arrays([lane_of(0.1, 0.5, 2**32 - 1, "random", 0.0), lane_of(0.2, 1, 3, "pt", 0.5)])
  dtypes = {
    "learning_rate": "float32",
    "c_tr": "float32",
    "stream": "uint32",
    "target": "int32",
    "noise_std": "float32",
  }
  assert {name: array.dtype.name for name, array in arrays.items()} == dtypes
  assert arrays["stream"].tolist() == [2**32 - 1, 3] and arrays["target"].tolist() == [2, 0]
  np.testing.assert_allclose(arrays["learning_rate"], [0.1, 0.2])


@pytest.mark.parametrize(
  ("devices", "inner", "message"),
  [
    (1, "pmap", "layout.inner: 'pmap' .*map, vmap, data"),
    (1, "", "layout.inner: '' .*map, vmap, data"),
    (0, "map", "layout.devices: 0 .*1 to "),
    (-1, "vmap", "layout.devices: -1 .*1 to "),
    (100_000, "map", "layout.devices: 100000 .*1 to "),
  ],
)
def test_a_layout_that_does_not_exist_is_refused(devices, inner, message):
  with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
    Layout(devices, inner)


def slow_cohorts(clock, compiling, by_inner):
  """Stands in for Cohort: a first call takes `compiling` seconds longer, a step of all lanes by_inner[...]."""

  def make(layout):
    waits = [compiling]

    def advance(state, lane, *, start, stop, since):
      clock[0] += (waits.pop() if waits else 0.0) + (stop - start) * by_inner[layout.inner]
      return state, np.zeros(1)

    same = lambda tree: tree  # noqa: E731
    laid = types.SimpleNamespace(lay_out=same)
    return types.SimpleNamespace(init=lambda params, lane: np.zeros(1), layout=laid, advance=advance)

  return make


@pytest.mark.parametrize(
  ("by_inner", "compiling", "fastest", "timed"),
  [
    ({"map": 0.3, "vmap": 0.1}, 1.0, "vmap", {"1xmap": 10.0, "1xvmap": 30.0}),
    ({"map": 0.1, "vmap": 0.3}, 1.0, "map", {"1xmap": 30.0, "1xvmap": 10.0}),
    ({"map": 0.3, "vmap": 0.1}, 1000.0, "map", {"1xmap": 10.0}),  # compiling another would cost more than it saves
  ],
)
def test_calibration_takes_the_fastest_layout_that_is_worth_compiling(monkeypatch, by_inner, compiling, fastest, timed):
  clock = [0.0]
  monkeypatch.setattr(calibration, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
  monkeypatch.setattr(jax, "device_count", lambda: 1)
  make = slow_cohorts(clock, compiling, by_inner)
  layout, rates = calibration.calibrate(make, [None] * NUMBER, None, RECIPE.optimizer, lane_steps=10_000)
  assert layout == Layout(1, fastest) and rates == pytest.approx(timed)


def test_calibration_of_real_cohorts_returns_a_candidate_and_its_speed(programs):
  def without_noise(layout):
    program = programs[layout.inner]
    init = lambda params, lane: start(program, params)  # noqa: E731
    return types.SimpleNamespace(init=init, layout=program.layout, advance=program.advance)

  lanes, params = lanes_of(0, NUMBER)
  arrays = cohort.lane_arrays(lanes)
  layout, rates = calibration.calibrate(without_noise, params, arrays, RECIPE.optimizer, lane_steps=10**9, seconds=0.01)
  candidates = calibration.candidate_layouts(NUMBER, RECIPE.optimizer)
  assert layout in candidates and set(rates) == {f"{x.devices}x{x.inner}" for x in candidates}
  assert all(rate > 0 for rate in rates.values())


@pytest.fixture(scope="module")
def on_devices():
  script = pathlib.Path(__file__).with_name("run_devices.py")
  done = subprocess.run(
    [sys.executable, str(script)], capture_output=True, text=True, cwd=script.parents[1], check=False
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.parametrize("layout", ["1xvmap", "2xmap", "4xvmap", "8xmap", "2xdata", "3xdata"])
def test_five_lanes_on_several_devices(on_devices, layout):
  result = on_devices["results"][layout]
  assert max(result["distances"]) < 1e-6 and len(result["distances"]) == 5
  assert result["equal_beside_others"] == [True, False, False, False, True]
  np.testing.assert_allclose(result["losses"], on_devices["losses"], rtol=1e-6)
  assert result["shape"] == [5, 4], "padding is dropped"
  assert result["round_trips"]
  assert result["resumed"] == [1, True], "a step is compiled once after a checkpoint, and ends as without it"
  assert result["fed"] == [True] * 5, "what the host reads trains as what the device draws"


def test_layouts_worth_timing_use_the_devices_at_hand(on_devices):
  assert on_devices["candidates"] == {
    "1": [[1, "map"], [8, "data"]],
    "4": [[4, "map"], [1, "vmap"], [8, "data"]],
    "5": [[5, "map"], [1, "vmap"]],
    "8": [[8, "map"], [1, "vmap"]],
    "16": [[8, "map"], [8, "vmap"], [1, "vmap"]],
  }
  assert on_devices["refusal"].startswith("layout.devices: 9 ") and "1 to 8" in on_devices["refusal"]
  assert on_devices["batch_refusal"].startswith("layout.devices: 4 ") and "6 / 1" in on_devices["batch_refusal"]
