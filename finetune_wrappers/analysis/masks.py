"""Which weights or neurons are pruned, and in which order (paper App. D); `pruning` measures what comes back.

Masks are pytrees of 0 and 1 shaped like the parameters, and everything is a pure function of pytrees, so
any model's parameters will do. The paper's score is +w * dL/dw with L the loss on the *pretraining*
task: to first order, zeroing w changes L by -w * dL/dw, so the largest score promises the largest fall.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from finetune_wrappers.analysis.units import Axes, by_unit, layers_of, named_leaves, over_weights
from finetune_wrappers.training.methods import is_matrix, path_of
from finetune_wrappers.types import InputError, Params, require

SCORES = ("gradient", "gradient_abs", "magnitude")
RANDOM = "random"  # `random_scores`
ITERATIVE = "gradient_iterative"  # the gradient score, taken anew after each unit: `iterative_ranks`
UNITS = ("weight", "neuron")
SCOPES = ("all", "near_zero", "matrices", "blocks")  # and paths
_NEVER = np.iinfo(np.int32).max  # the place of what is not pruned
_NEAR_ZERO = 0.5  # Tracr's own weights are 0 or at least 1 in size, but for the thresholds of its MLPs


def weight_scores(score: str, params: Params, *, grads: Params) -> Params:
  """A score for every weight, pytree like params; the highest is pruned first.

  Args:
    score: `gradient` (+w * g, the paper's), `gradient_abs` (|w * g|) or `magnitude` (|w|).
    params: weights w.
    grads: g = dL/dw, L the loss on the pretraining task; unused by the last.

  Raises:
    InputError: for another score.
  """
  if score == "gradient":
    return jax.tree.map(jnp.multiply, params, grads)
  if score == "gradient_abs":
    return jax.tree.map(lambda w, g: jnp.abs(w * g), params, grads)
  if score == "magnitude":
    return jax.tree.map(jnp.abs, params)
  raise InputError(f"score: {score!r} is not one of {', '.join(SCORES)}")


def scope_mask(scope: str, params: Params, *, compiled: Params | None = None) -> Params:
  """Which weights may be pruned: pytree of bools like params.

  Args:
    scope: `all`; `near_zero`, weights that compilation left below 0.5 in size, so that what the compiler
      built stays (pruning over all weights removes load-bearing ones; fig57_prune_weights runs both); `matrices`,
      arrays of two axes or more, not called embedding; `blocks`, all below keys that begin with blocks_, which leaves
      out embeddings, last norm and head, whose units are tokens rather than neurons;
      or the path of one array, such as `blocks_1/attn/value/kernel`, or of a subtree, such as `blocks_1`.
    params: weights.
    compiled: weights as compiled, for `near_zero`.

  Raises:
    InputError: for a path that is not there, or `near_zero` without compiled weights.
  """
  if scope == "all":
    return jax.tree.map(lambda w: jnp.ones(w.shape, bool), params)
  if scope == "near_zero" and compiled is not None:
    return jax.tree.map(lambda w: jnp.abs(jnp.asarray(w)) < _NEAR_ZERO, compiled)
  check_scope(scope, params, compiled=compiled is not None)
  return jax.tree_util.tree_map_with_path(lambda p, w: jnp.full(w.shape, _inside(scope, path_of(p), w)), params)


def check_scope(scope: str, params: Params, *, compiled: bool) -> None:
  """Raises InputError for a scope that no parameter is in; shapes from `jax.eval_shape` are enough.

  Args:
    scope: see `scope_mask`.
    params: a pytree with the parameters' paths.
    compiled: whether there are compiled weights, for `near_zero`.
  """
  named = named_leaves(params)
  if scope == "near_zero" and not compiled:
    raise InputError("scope: near_zero is only possible for a compiled model")

  def there(name: str) -> bool:
    return name == "all" or name == "near_zero" or any(_inside(name, path, leaf) for path, leaf in named)

  if not there(scope):
    known = [name for name in SCOPES if there(name) and (name != "near_zero" or compiled)]
    paths = sorted(path for path, _ in named if path)
    raise InputError(f"scope: {scope!r} is not one of {', '.join([*known, *paths])}, or the beginning of such a path")


def _inside(scope: str, path: str, leaf: Any) -> bool:
  if scope == "matrices":
    return is_matrix(path, leaf)
  return f"{path}/".startswith(f"{scope}/") or (scope == "blocks" and path.startswith("blocks_"))


def unit_scores(scores: Params, *, scope: Params, unit: str, axes: Axes = (), mean: bool = False) -> Params:
  """Scores with which units compete: single weights, or neurons.

  A neuron is one output unit of a weight matrix with its bias (a row of the matrix in the paper's
  orientation, a column of a Flax kernel; see `units`). Its score is the sum over its weights in scope (to first order
  what zeroing all of them does to the loss), and every weight of a neuron gets its neuron's score. Weights out of scope
  get -inf, and so do those of no neuron, such as embeddings.

  Args:
    scores: from `weight_scores`.
    scope: from `scope_mask`.
    unit: `weight` or `neuron`.
    axes: of neurons, see `units.layers_of`.
    mean: whether a neuron's score is the mean instead, for scores that would otherwise go by its number of weights.

  Raises:
    InputError: for another unit, or neurons that cannot be told (`units.layers_of`).
  """
  if unit == "weight":
    return jax.tree.map(lambda s, m: jnp.where(m, s, -jnp.inf), scores, scope)
  if unit != "neuron":
    raise InputError(f"unit: {unit!r} is not one of {', '.join(UNITS)}")
  (leaves, structure), inside = jax.tree.flatten(scores), jax.tree.leaves(scope)
  out = [jnp.full(leaf.shape, -jnp.inf) for leaf in leaves]
  for layer in layers_of(scores, axes):
    total = sum(by_unit(jnp.where(inside[i], leaves[i], 0.0), own).sum(0) for i, own in layer.items())
    if mean:
      total = total / jnp.maximum(sum(by_unit(inside[i], own).sum(0) for i, own in layer.items()), 1)
    for i, own in layer.items():
      out[i] = jnp.where(inside[i], over_weights(total, shape=leaves[i].shape, axes=own), -jnp.inf)
  return structure.unflatten(out)


def random_scores(key: Any, *, scope: Params, unit: str, axes: Axes = ()) -> Params:
  """A uniform number for each unit, like `unit_scores`: every unit in scope is as likely to come first."""
  allowed = unit_scores(jax.tree.map(lambda x: jnp.zeros(x.shape), scope), scope=scope, unit=unit, axes=axes)
  size = ravel_pytree(allowed)[0].size
  ids = _neuron_ids(allowed, axes) if unit == "neuron" else _unravel_like(allowed, jnp.arange(size))
  numbers = jax.random.uniform(key, (size,))
  return jax.tree.map(lambda own, score: jnp.where(jnp.isfinite(score), numbers[own], -jnp.inf), ids, allowed)


def ranks(scores: Params, unit: str, count: int | None = None, *, axes: Axes = ()) -> Params:
  """Place of each weight in the order of pruning, int pytree, 0 first; ties by position in the tree.

  With `neuron`, all weights of a neuron share its place. Weights out of scope, and those of no neuron, come after
  every K.

  Args:
    scores: from `unit_scores` or `random_scores`.
    unit: `weight` or `neuron`.
    count: how many units get a place, the rest come after every K; None: all. The largest K is enough, and finding
      it takes a hundredth of the time of sorting everything.
    axes: of neurons, as `scores` were made with.
  """
  if unit == "neuron":
    return _neuron_ranks(scores, count, axes)
  flat, _ = ravel_pytree(scores)
  return _unravel_like(scores, jnp.where(jnp.isfinite(flat), _places(flat, count), _NEVER))


def _places(scores_U, count: int | None):
  """Place of each unit, the highest score first; equal ones in their order."""
  scores_U = jnp.where(jnp.isnan(scores_U), -jnp.inf, scores_U)
  size = scores_U.size
  if count is None or count >= size:
    order = jnp.argsort(-scores_U, stable=True)
  else:
    order = jax.lax.top_k(scores_U, count)[1]
  return jnp.full(size, _NEVER, jnp.int32).at[order].set(jnp.arange(order.size, dtype=jnp.int32))


def _neuron_ranks(scores: Params, count: int | None, axes: Axes) -> Params:
  """`ranks` of neurons: only they are sorted, which are hundreds of times fewer than weights."""
  leaves, structure = jax.tree.flatten(scores)
  layers = layers_of(scores, axes)
  best = [functools.reduce(jnp.maximum, (by_unit(leaves[i], own).max(0) for i, own in la.items())) for la in layers]
  ends = np.cumsum([own.size for own in best])[:-1]
  out = [jnp.full(leaf.shape, _NEVER, jnp.int32) for leaf in leaves]
  for layer, places in zip(layers, jnp.split(_places(jnp.concatenate(best), count), ends), strict=True):
    for i, own in layer.items():
      out[i] = jnp.where(jnp.isfinite(leaves[i]), over_weights(places, shape=leaves[i].shape, axes=own), _NEVER)
  return structure.unflatten(out)


def iterative_ranks(
  params: Params,
  gradient: Callable[[Params], Params],
  *,
  scope: Params,
  unit: str,
  count: int,
  every: int = 1,
  axes: Axes = (),
) -> Params:
  """Places as `ranks` gives them, with the gradient score taken anew after every few units that were zeroed.

  One shot sums first-order effects that were measured with all units in place; this follows what zeroing changes.

  Args:
    params: weights.
    gradient: dL/dw at given weights, L the loss on the pretraining task.
    scope: from `scope_mask`.
    unit: `weight` or `neuron`.
    count: K, how many units are placed; the rest come after every K.
    every: units zeroed between two gradients.
    axes: of neurons, see `units.layers_of`.

  Raises:
    InputError: for counts below 1, or as `unit_scores`.
  """
  for field, value in (("count", count), ("every", every)):
    require(value >= 1, field, value, "1 or more")

  def place_next(start, places):
    pruned = apply_mask(params, keep_mask(places, start))
    scores = weight_scores("gradient", pruned, grads=gradient(pruned))
    left = jax.tree.map(lambda inside, place: inside & (place == _NEVER), scope, places)
    found = ranks(unit_scores(scores, scope=left, unit=unit, axes=axes), unit, every, axes=axes)
    return jax.tree.map(lambda old, new: jnp.where(new < every, start + new, old), places, found), None

  places = jax.tree.map(lambda w: jnp.full(w.shape, _NEVER, jnp.int32), params)
  return jax.lax.scan(lambda carried, start: place_next(start, carried), places, jnp.arange(0, count, every))[0]


def keep_mask(places: Params, k: Any) -> Params:
  """float32 pytree of 0 and 1: 0 for exactly the K first units.

  Args:
    places: from `ranks`.
    k: how many; may be traced.
  """
  return jax.tree.map(lambda place: (place >= k).astype(jnp.float32), places)


def apply_mask(params: Params, mask: Params) -> Params:
  """Params with the masked weights at zero."""
  return jax.tree.map(jnp.multiply, params, mask)


def curve(params: Params, *, places: Params, ks: Any, measure: Callable[[Params], Any]):
  """measure(params with K units at zero) for each K, stacked on a first axis."""
  return jax.lax.map(lambda k: measure(apply_mask(params, keep_mask(places, k))), jnp.asarray(ks))


def first_units(places: Params, k: int) -> list[tuple[str, tuple[int, ...]]]:
  """Where the K first single weights sit: (path, index) in the order of pruning."""
  found = []
  for path, place in named_leaves(jax.device_get(places)):
    found += [(int(place[index]), path, index) for index in zip(*(place < k).nonzero(), strict=True)]
  return [(path, tuple(int(i) for i in index)) for _, path, index in sorted(found)]


def _neuron_ids(tree: Params, axes: Axes) -> Params:
  """A number for each neuron, the same on all its weights; weights of no neuron each have their own."""
  leaves, structure = jax.tree.flatten(tree)
  layer_of = {i: layer for layer in layers_of(tree, axes) for i in layer}
  out, start = {}, 0
  for i, leaf in enumerate(leaves):
    if i in out:
      continue
    layer = layer_of.get(i, {i: tuple(range(leaf.ndim))})
    size = by_unit(leaf, layer[i]).shape[1]
    ids = jnp.arange(start, start + size)
    out |= {j: over_weights(ids, shape=leaves[j].shape, axes=own) for j, own in layer.items()}
    start += size
  return structure.unflatten([out[i] for i in range(len(leaves))])


def _unravel_like(tree: Params, flat) -> Params:
  leaves, structure = jax.tree.flatten(tree)
  out, start = [], 0
  for leaf in leaves:
    out.append(flat[start : start + leaf.size].reshape(leaf.shape))
    start += leaf.size
  return structure.unflatten(out)
