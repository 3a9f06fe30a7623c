"""The trainer where lanes change their company: other groupings, too little memory. Stages are test_loop's."""

import contextlib
import dataclasses
import errno
import itertools
import types

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from test_loop import (
  ALL,
  FINETUNE,
  MODEL,
  OTHER,
  REFT,
  ROOT,
  STEPS,
  STILL,
  WANTED,
  build,
  same_stages,
  trainer,
  whole_run,
)
from tiny import LIGHT, RECIPE, lanes_of

from finetune_wrappers.training import calibration, cohort_run, loop
from finetune_wrappers.training.cohort import Cohort, lane_arrays
from finetune_wrappers.training.failures import Interrupted, LanesFailed
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.programs import Programs
from finetune_wrappers.training.store import Store
from finetune_wrappers.types import InputError


@pytest.fixture(scope="module")
def single(tmp_path_factory):
  return whole_run(tmp_path_factory.mktemp("single"))


@pytest.mark.parametrize("sizes", [(2, 1, 2), (1, 2, 2)])
def test_lanes_go_on_in_another_grouping_from_where_each_was(single, tmp_path, monkeypatch, sizes):
  """Whatever ran beside it, a lane goes on where it was, to the same bits, and no step is trained twice."""
  monkeypatch.setattr(cohort_run, "_PART_SECONDS", 0)
  advance, trained = Cohort.advance, []

  def spy(self, state, lane, *, start, stop, since):
    trained.append((stop - start) * state.diverged_step.size)
    return advance(self, state, lane, start=start, stop=stop, since=since)

  monkeypatch.setattr(Cohort, "advance", spy)
  for lanes, patience in zip(sizes, (5, 7, 1000), strict=True):
    left = iter([False] * patience)
    run = trainer(Store(tmp_path), lanes_per_program=lanes, stopping=lambda left=left: next(left, True))
    with contextlib.suppress(Interrupted):
      run.run(WANTED)
  assert sum(trained) == 2 * STEPS
  same_stages(Store(tmp_path), single.store)
  assert list((tmp_path / "cohorts").iterdir()) == []


def hold_lanes(most, patch):
  """Stands in for devices whose memory holds that many lanes."""
  advance = Cohort.advance

  def limited(self, state, *rest, **span):
    if state.diverged_step.size > most:
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
    return advance(self, state, *rest, **span)

  patch(Cohort, "advance", limited)


def test_out_of_memory_is_tried_again_in_smaller_programs(single, tmp_path, monkeypatch):
  hold_lanes(1, monkeypatch.setattr)
  trainer(Store(tmp_path), lanes_per_program=64).run(WANTED)
  same_stages(Store(tmp_path), single.store)


def test_a_lane_that_fits_in_no_memory_is_named_and_the_others_are_trained(single, tmp_path, monkeypatch):
  advance = Cohort.advance

  def small(self, state, lane, **span):
    if np.isclose(lane["learning_rate"], OTHER.learning_rate).any():
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
    return advance(self, state, lane, **span)

  monkeypatch.setattr(Cohort, "advance", small)
  with pytest.raises(
    LanesFailed, match="alone: finetune counter learning_rate=0.001 target=ft c_tr=1.0 seed=0; not"
  ) as failed:
    trainer(Store(tmp_path)).run(WANTED)
  assert failed.value.stages == [OTHER] and failed.value.blocked == [STILL]
  store = Store(tmp_path)
  assert not store.has(OTHER) and not store.has(STILL)
  same_stages(store, single.store, [ROOT, FINETUNE, REFT])


def test_another_error_of_the_device_is_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
  def broken(*_, **__):
    raise jax.errors.JaxRuntimeError("INTERNAL: bad")

  monkeypatch.setattr(Cohort, "advance", broken)
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    trainer(Store(tmp_path)).run(WANTED)


def test_a_clock_that_jumps_changes_no_number(single, tmp_path, monkeypatch):
  jumps = itertools.cycle((0.0, 1e9, -1e9, 5.0, np.inf))
  for module in (loop, cohort_run):
    monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: next(jumps)))
  trainer(Store(tmp_path), checkpoint_seconds=60.0).run(WANTED)
  same_stages(Store(tmp_path), single.store)


def test_a_disk_that_fills_up_on_the_way_costs_what_came_after_the_last_checkpoint(single, tmp_path, monkeypatch):
  save, left = ocp.save, iter([True] * 6)  # the root, then checkpoints and stages

  def until_full(path, arrays):
    if not next(left, False):
      path.mkdir()
      raise OSError(errno.ENOSPC, "No space left on device")
    save(path, arrays)

  with monkeypatch.context() as patched, pytest.raises(InputError, match=r"\Aworkdir: [^\n]* is full[^\n]*\Z"):
    patched.setattr(ocp, "save", until_full)
    trainer(Store(tmp_path)).run(WANTED)
  done = [stage for stage in ALL if Store(tmp_path).has(stage)]
  assert ROOT in done and len(done) < len(ALL)
  trainer(Store(tmp_path)).run(WANTED)
  same_stages(Store(tmp_path), single.store)


def test_lanes_of_a_program_are_chosen_from_the_memory_of_an_accelerator(tmp_path, monkeypatch):
  store = Store(tmp_path)
  store.save(ROOT, *build(ROOT))

  def sizes(most):
    plan = trainer(store, lanes_per_program=most).plan(seeds, lambda root: (MODEL, build(root)[0]["params"]))
    return [len(work.stages) for work in plan]

  seeds = [dataclasses.replace(FINETUNE, seed=seed) for seed in range(64 * jax.device_count())]
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(Cohort, "memory", lambda self, params, lane: 10 * len(params))
  for room, expected in ((100, 8), (5, 1), (10**6, 64), (None, 64)):
    monkeypatch.setattr(calibration, "device_memory", lambda room=room: room)
    assert max(sizes(0)) == expected * jax.device_count()
  assert max(sizes(3)) == 3


def test_a_programs_memory_grows_with_its_lanes():
  lanes, params = lanes_of(0, 4, LIGHT)
  program = Cohort(LIGHT, RECIPE, Layout(1, "vmap"))
  one, four = (program.memory(params[:n], lane_arrays(lanes[:n])) for n in (1, 4))
  weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params[0]))
  assert one > 2 * weights and four > 3 * one  # weights and momentum, at the least


def test_a_checkpoint_before_the_first_evaluation_is_kept_too(tmp_path, monkeypatch):
  monkeypatch.setattr(cohort_run, "_PART_SECONDS", 0)
  late = dataclasses.replace(FINETUNE, optimizer=dataclasses.replace(FINETUNE.optimizer, eval_steps=(8,)))
  left = iter([False] * 5)
  with pytest.raises(Interrupted, match=r"\Astopped with [1-7] of 8 steps of all runs done\Z"):
    trainer(Store(tmp_path / "cut"), stopping=lambda: next(left, True)).run([late])
  for name in ("cut", "whole"):
    trainer(Store(tmp_path / name)).run([late])
  same_stages(Store(tmp_path / "cut"), Store(tmp_path / "whole"), [late])


def test_a_layout_that_does_not_fit_is_passed_over_in_the_choice(monkeypatch):
  def timed(program, params, lane, seconds):
    if program.inner == "map":
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    return {"compile_seconds": 0.0, "step_seconds": 1.0, "eval_seconds": 0.0}

  monkeypatch.setattr(calibration, "timed", timed)
  make = lambda layout: layout  # noqa: E731
  candidates = [Layout(1, "map"), Layout(1, "vmap")]
  monkeypatch.setattr(calibration, "candidate_layouts", lambda lanes, settings: candidates)
  layout, rates = calibration.calibrate(make, [None] * 4, None, RECIPE.optimizer, lane_steps=10**9)
  assert layout == Layout(1, "vmap") and rates == {"1xvmap": 4.0}
  candidates.pop()
  with pytest.raises(jax.errors.JaxRuntimeError):
    calibration.calibrate(make, [None] * 4, None, RECIPE.optimizer, lane_steps=10**9)


def test_what_killed_saves_left_goes_when_everything_is_trained(tmp_path):
  store = Store(tmp_path)
  trainer(store).run([ROOT])
  for name in (f".{ROOT.key}-1", f".{OTHER.key}-1"):
    (tmp_path / "stages" / name).mkdir()
  trainer(store).run([ROOT])
  left = sorted(path.name for path in (tmp_path / "stages").iterdir())
  assert left == sorted([ROOT.key, f".{OTHER.key}-1"]), "of a stage that is not there, it may be another process's"


def test_of_two_choices_of_a_layout_the_first_for_as_many_lanes_stands(tmp_path):
  first, second = ({"layout": {"devices": 1, "inner": inner}, "lanes": 2} for inner in ("map", "vmap"))
  runs = [Programs(Store(tmp_path), None, 0) for _ in range(2)]
  assert runs[0]._settled("layout", first) == first
  assert runs[1]._settled("layout", second) == first
  assert runs[1]._settled("layout", second | {"lanes": 3}) == second | {"lanes": 3}
  assert Store(tmp_path).recall("layout") == second | {"lanes": 3}
