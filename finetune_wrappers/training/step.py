"""One lane's training: loss, update, divergence. Pure functions of arrays, whatever runs beside them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from finetune_wrappers.models.model import Model
from finetune_wrappers.training.keys import key_for
from finetune_wrappers.training.optim import add_noise
from finetune_wrappers.training.stages import Recipe
from finetune_wrappers.training.swept import with_values
from finetune_wrappers.types import Params

Lane = Mapping[str, Any]  # traced values by name, each [R], or of one lane []; with `stream` (`TrainStage.lane`)


class LaneState(NamedTuple):
  """What training carries from step to step.

  Attributes:
    trained: float32 pytree, what the method trains.
    optimizer: of `Optimizer.direction`.
    loss: sum of the training losses since the last evaluation.
    diverged_step: the first step whose loss, or else the step after which a weight, was not finite; or -1.
    frozen: what the method leaves as it is.
    logs: sums, like the loss, of what the objective logs.
  """

  trained: Any
  optimizer: Any
  loss: Any
  diverged_step: Any
  frozen: Any
  logs: dict[str, Any]


def with_lane(recipe: Recipe, lane: Lane) -> Recipe:
  """The recipe with one lane's values in it."""
  names = ("objective", "method", "optimizer", "evaluator")
  return recipe._replace(**{name: with_values(getattr(recipe, name), lane) for name in names})


def init_state(recipe: Recipe, params: Params, lane: Lane) -> LaneState:
  """A lane before its first step: the parent's weights, with noise if the recipe has any."""
  key = jax.random.fold_in(jax.random.key(lane["stream"]), 0)
  if "noise_std" in recipe.traced:
    params = add_noise(key, params, lane["noise_std"])
  recipe = with_lane(recipe, lane)
  trained, frozen = recipe.method.split(params, key_for(key, "method"))
  zero, never = jnp.zeros((), jnp.float32), jnp.full((), -1, jnp.int32)
  logs = {name: zero for name in recipe.objective.logs}
  return LaneState(trained, recipe.optimizer.direction().init(trained), zero, never, frozen, logs)


def train(model: Model, recipe: Recipe, lane: Lane, state: LaneState, *, start, stop, fed=(), shard=None) -> LaneState:
  """Steps start..stop-1 of one lane.

  A loop with traced bounds rather than a scan of fixed length, so that one compiled program serves every
  distance between evaluations.

  Args:
    model: of the lane.
    recipe: shared by all lanes.
    lane: what is this lane's own.
    state: before step `start`.
    start: first step.
    stop: one past the last.
    fed: batches [steps or more, B, ...] from step `start` on, if the host reads them.
    shard: None, or (name of a pmap's axis, its size): each of its devices draws the whole batch, which costs little,
      and takes its part of it.
  """
  recipe = with_lane(recipe, lane)
  optimizer, model = recipe.optimizer, recipe.method.model(model)
  shape, rule = optimizer.schedule(), optimizer.direction()
  stream = jax.random.key(lane["stream"])

  def step(i, state: LaneState) -> LaneState:
    key = jax.random.fold_in(stream, i + 1)
    if recipe.objective.fed:
      batch = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i - start, keepdims=False), fed)
    else:
      batch = recipe.objective.draw(recipe.task, key, optimizer.batch_size)
    if shard:
      axis, devices = shard
      batch = jax.tree.map(lambda rows: _part(rows, axis, devices), batch)
    found = loss_and_grads(
      model, recipe, trained=state.trained, frozen=state.frozen, batch=batch, key=key_for(key, "loss")
    )
    if shard:
      found = jax.lax.pmean(found, shard[0])
    (loss, logs), grads = found
    direction, carried = rule.update(grads, state.optimizer, state.trained)
    rate = lane["learning_rate"] * shape(i)
    trained = jax.tree.map(lambda p, d: p - rate * d, state.trained, direction)
    first_bad = jnp.where(jnp.isfinite(loss), -1, i)
    diverged_step = jnp.where(state.diverged_step < 0, first_bad, state.diverged_step).astype(jnp.int32)
    sums = jax.tree.map(jnp.add, state.logs, logs)
    return LaneState(trained, carried, state.loss + loss, diverged_step, state.frozen, sums)

  state = jax.lax.fori_loop(start, stop, step, state)
  whole = jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.trained)]))
  diverged_step = jnp.where((state.diverged_step < 0) & ~whole, stop, state.diverged_step)
  return state._replace(diverged_step=diverged_step)


def loss_and_grads(model: Model, recipe: Recipe, *, trained: Any, frozen: Any, batch: Any, key: Any):
  """((loss, logs), gradient like `trained`), computed in `microbatches` parts of the batch."""

  def loss_fn(trained, batch, key):
    loss, logs = recipe.objective.loss(model, recipe.method.join(trained, frozen), recipe.task, batch, key)
    chex.assert_shape([loss, *logs.values()], ())
    return loss, logs

  value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
  parts = recipe.optimizer.microbatches
  if parts == 1:
    return value_and_grad(trained, batch, key)

  def add(total, part):
    return jax.tree.map(jnp.add, total, value_and_grad(trained, *part)), None

  split = jax.tree.map(lambda rows: rows.reshape(parts, -1, *rows.shape[1:]), batch)
  zero = (
    (jnp.zeros(()), {name: jnp.zeros(()) for name in recipe.objective.logs}),
    jax.tree.map(jnp.zeros_like, trained),
  )
  total, _ = jax.lax.scan(add, zero, (split, jax.random.split(key, parts)))
  return jax.tree.map(lambda x: x / parts, total)


def evaluate(model: Model, recipe: Recipe, lane: Lane, state: LaneState, tests: Any) -> Any:
  """The evaluator's metrics, float32 [M]."""
  recipe = with_lane(recipe, lane)
  params = recipe.method.join(state.trained, state.frozen)
  metrics = recipe.evaluator.measure(recipe.method.model(model), params, recipe.task, tests)
  chex.assert_shape(metrics, (len(recipe.evaluator.metrics(recipe.task)),))
  return metrics


def _part(batch, axis: str, devices: int):
  """This device's rows, [B, ...] to [B / devices, ...]."""
  size = len(batch) // devices
  return jax.lax.dynamic_slice_in_dim(batch, jax.lax.axis_index(axis) * size, size)
