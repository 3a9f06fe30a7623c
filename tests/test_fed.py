"""Batches that the host reads: a run of them equals the run that draws the same ones."""

import jax
import numpy as np
import pytest
from fed import RECIPE_READ, Read
from tiny import LIGHT, RECIPE, equal_lanes, lanes_of, run

from finetune_wrappers.training import cohort
from finetune_wrappers.training.cohort import Cohort
from finetune_wrappers.training.lanes import Layout


@pytest.fixture(scope="module")
def lanes():
  return lanes_of(0, 3, LIGHT)


@pytest.mark.parametrize("inner", ["map", "vmap"])
@pytest.mark.parametrize("at_once", [1, 7, 32])
def test_what_is_read_trains_as_what_is_drawn(lanes, inner, at_once, monkeypatch):
  drawn = run(Cohort(LIGHT, RECIPE, Layout(1, inner)), *lanes, stops=(20,))
  monkeypatch.setattr(cohort, "_FED_STEPS", at_once)
  program = Cohort(LIGHT, RECIPE_READ, Layout(1, inner))
  for stops in ((20,), (1, 9, 20), (7, 14, 20)):
    read = run(program, *lanes, stops=stops)
    assert [*map(np.shape, jax.tree.leaves(read))] == [*map(np.shape, jax.tree.leaves(drawn))]
    # Means of the loss are since the last stop.
    read, told = read[0]._replace(loss=np.zeros(3)), drawn[0]._replace(loss=np.zeros(3))
    assert equal_lanes(read, told) == [True] * 3


def test_losses_are_means_over_all_that_was_handed_over(lanes, monkeypatch):
  drawn, _ = run(Cohort(LIGHT, RECIPE, Layout(1, "map")), *lanes, stops=(4, 20))
  monkeypatch.setattr(cohort, "_FED_STEPS", 3)
  read, _ = run(Cohort(LIGHT, RECIPE_READ, Layout(1, "map")), *lanes, stops=(4, 20))
  np.testing.assert_array_equal(read.loss, drawn.loss)


def test_the_host_is_asked_for_each_step_once_and_no_other(lanes, monkeypatch):
  asked, feed = [], Read.feed
  monkeypatch.setattr(Read, "feed", lambda *args: (asked.append((int(args[2]["stream"]), *args[-1])), feed(*args))[1])
  monkeypatch.setattr(cohort, "_FED_STEPS", 8)
  run(Cohort(LIGHT, RECIPE_READ, Layout(1, "map")), *lanes, stops=(10, 20))
  for lane in lanes[0]:
    own = [steps for stream, *steps in asked if stream == int(lane["stream"])]
    assert own == [[*range(0, 8)], [8, 9], [*range(10, 18)], [18, 19]]


def test_nothing_is_trained_between_equal_steps(lanes):
  program = Cohort(LIGHT, RECIPE_READ, Layout(1, "map"))
  state, metrics = run(program, *lanes, stops=(0,))
  expected, before = run(Cohort(LIGHT, RECIPE, Layout(1, "map")), *lanes, stops=(0,))
  assert equal_lanes((state.trained, metrics), (expected.trained, before)) == [True] * 3


def test_memory_counts_what_is_handed_over(lanes):
  arrays = cohort.lane_arrays(lanes[0])
  read = Cohort(LIGHT, RECIPE_READ, Layout(1, "map")).memory(lanes[1], arrays)
  drawn = Cohort(LIGHT, RECIPE, Layout(1, "map")).memory(lanes[1], arrays)
  tokens_and_labels = 3 * 20 * 6 * (7 + 1) * 4
  assert read - drawn > tokens_and_labels / 2
