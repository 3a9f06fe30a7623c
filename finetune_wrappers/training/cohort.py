"""Cohorts: lanes that share a recipe and shapes, run as one compiled program."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune_wrappers.models.model import Model
from finetune_wrappers.training import step
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.stages import Recipe
from finetune_wrappers.types import Params, require

_FED_STEPS = 32  # of batches of files: 16 MB a lane at the paper's 128 rows of 1024 tokens


class Cohort:
  """One compiled program and the ways in and out of it.

  Lanes are padded to a multiple of the devices by repeating the last; padding is dropped from everything
  that comes out.

  Args:
    model: of all lanes.
    recipe: shared by all lanes.
    layout: how lanes are laid out.
  """

  def __init__(self, model: Model, recipe: Recipe, layout: Layout):
    if layout.shard:
      _require_divides(recipe, layout.devices)
    self.recipe, self.layout = recipe, layout
    self._model = model
    tests = recipe.evaluator.test_sets(recipe.task)

    def advance_lane(state, lane, fed, start, stop, since):
      state = step.train(model, recipe, lane, state, start=start, stop=stop, fed=fed, shard=layout.shard)
      asked = since >= 0
      metrics = jax.lax.cond(
        asked,
        lambda state: step.evaluate(model, recipe, lane, state, tests),
        lambda _: jnp.zeros(len(recipe.evaluator.metrics(recipe.task))),
        state,
      )
      sums = (state.loss, state.logs)
      means = jax.tree.map(lambda total: total / jnp.maximum(stop - since, 1), sums)
      loss, logs = jax.tree.map(lambda total: jnp.where(asked, 0.0, total), sums)
      return state._replace(loss=loss, logs=logs), (metrics, *means)

    def init_lane(params, lane):
      return step.init_state(recipe, params, lane)

    self._advance = layout.spread(advance_lane, lanes=3, scalars=3)
    self._init = layout.spread(init_lane, lanes=2, scalars=0)

  def init(self, params: Sequence[Params], lane: step.Lane) -> step.LaneState:
    """States of R lanes from R parameter pytrees, laid out over the devices."""
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *params)
    with self._model.numerics():
      return self._init(self.layout.lay_out(stacked), self.layout.lay_out(lane))

  def advance(self, state, lane: step.Lane, *, start: int, stop: int, since: int | None = None):
    """Trains steps start..stop-1 and, if asked, answers the test sets.

    Where a run is cut into parts changes nothing, to the bit.

    Args:
      state: laid out, donated.
      lane: laid out.
      start: first step.
      stop: one past the last.
      since: the step of the last evaluation, for the means from there on; None does not evaluate.

    Returns:
      (state, (metrics [devices, R / devices, M], mean loss [devices, R / devices], means of the logs)), laid out; still
      being computed when this returns. All but the state mean nothing where `since` is None.
    """
    most, asked = (
      (self._fed_steps if self.recipe.objective.fed else max(stop - start, 1)),
      -1 if since is None else since,
    )
    measured = None
    with self._model.numerics():
      for begin, end in itertools.pairwise([*range(start, stop, most), stop] if start < stop else [start, stop]):
        # While the devices are at it, the host reads what comes next: a call returns before its results are there.
        fed, told = self._feed(lane, range(begin, end)), asked if end == stop else -1
        state, measured = self._advance(state, lane, fed, *map(jnp.int32, (begin, end, told)))
    return state, measured

  @property
  def _fed_steps(self) -> int:
    """Steps whose batches are handed over at once."""
    return min(_FED_STEPS, self.recipe.optimizer.steps)

  def _feed(self, laid: step.Lane, steps: range) -> Any:
    """Batches of lanes that are laid out, [devices, R / devices, steps up to `_fed_steps`, B, ...]; none to draw."""
    objective, size = self.recipe.objective, self.recipe.optimizer.batch_size
    if not objective.fed:
      return ()

    def of_lane(place):
      found = objective.feed(self.recipe.task, {name: x[place] for name, x in laid.items()}, size, steps)
      room = self._fed_steps - len(steps)  # one shape, one program
      return jax.tree.map(lambda x: np.concatenate([x, np.zeros((room, *x.shape[1:]), x.dtype)]), found)

    devices, lanes = laid["stream"].shape
    if self.layout.shard:  # every device has all lanes
      own = jax.tree.map(lambda *x: np.stack(x), *(of_lane((0, lane)) for lane in range(lanes)))
      return jax.tree.map(lambda x: np.broadcast_to(x, (devices, *x.shape)), own)
    own = jax.tree.map(lambda *x: np.stack(x), *map(of_lane, np.ndindex(devices, lanes)))
    return jax.tree.map(lambda x: x.reshape(devices, lanes, *x.shape[1:]), own)

  def memory(self, params: Sequence[Params], lane: step.Lane) -> int:
    """Bytes that training these R lanes takes on each device: weights, optimizer and what a step computes."""
    laid = self.layout.lay_out(lane)
    state = jax.eval_shape(lambda: self.init(params, lane))
    with self._model.numerics():
      fed = self._feed(laid, range(0))
      program = self._advance.lower(state, laid, fed, jnp.int32(0), jnp.int32(1), jnp.int32(0)).compile()
    used = program.memory_analysis()
    return used.argument_size_in_bytes + used.temp_size_in_bytes


def _require_divides(recipe: Recipe, devices: int) -> None:
  optimizer = recipe.optimizer
  allowed = (
    f"a divisor of batch_size / microbatches ({optimizer.batch_size} / {optimizer.microbatches}) for inner = data"
  )
  require(optimizer.batch_size % (devices * optimizer.microbatches) == 0, "layout.devices", devices, allowed)


def lane_arrays(lanes: Sequence[step.Lane]) -> dict[str, np.ndarray]:
  """R lanes of numbers as one of arrays [R].

  Raises:
    InputError: if one has values that another has not: they are lanes of two programs.
  """
  names = sorted({tuple(sorted(lane)) for lane in lanes})
  require(len(names) == 1, "lanes", names, "lanes with the same traced values; None is another program")
  return {name: np.stack([np.asarray(lane[name]) for lane in lanes]) for name in lanes[0]}
