"""Neurons of any pytree of parameters: which arrays have them, along which axes, and which bias goes with them.

A neuron is one output unit of a matrix, with its entry of the bias beside it. A matrix of two axes has its units along
the last, as Flax keeps them: [inputs, outputs]. Where more axes number them, or others, `Axes` says so: a kernel
[D, H, K] of H heads has H * K neurons along axes (1, 2), and the kernel [H, K, D] behind it has D along axis (2,).
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from finetune_wrappers.training.methods import is_matrix, path_of
from finetune_wrappers.types import InputError, Params, require

# (path of an array or the end of it, axes that number its neurons; none where it has no neurons)
Axes = tuple[tuple[str, tuple[int, ...]], ...]
# Arrays that share their neurons: place among the leaves of the pytree to the axes that number them.
Layer = Mapping[int, tuple[int, ...]]


def named_leaves(params: Params) -> list[tuple[str, Any]]:
  """(path such as `blocks_1/attn/value/kernel`, array) of every leaf."""
  return [(path_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]


def layers_of(params: Params, axes: Axes = ()) -> list[Layer]:
  """Every layer that has neurons, in the order of the leaves.

  A matrix is an array of two axes that is not called embedding. The bias of a layer is the array of the same parent
  whose shape is that of the layer's units.

  Args:
    params: arrays, or anything with their shapes.
    axes: for arrays whose neurons are not along the last of two axes; of several that fit, the last counts.

  Raises:
    InputError: for an array of more axes that `axes` does not name, a bias that fits several matrices, axes that
      cannot be, or no matrix at all.
  """
  named, said = named_leaves(params), _said(params, axes)
  parents = [path[:-1] for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  # A bias [H, K] has two axes too.
  biases = [(parents[place], _units(named[place][1].shape, own)) for place, own in said.items() if len(own) > 1]
  found: dict[int, dict[int, tuple[int, ...]]] = {}
  for place, (path, leaf) in enumerate(named):
    if place not in said and is_matrix(path, leaf) and len(leaf.shape) > 2:
      raise InputError(f"unit: neuron of {path} {leaf.shape} may be along any of its axes; say which in neuron_axes")
    alone = is_matrix(path, leaf) and (parents[place], leaf.shape) not in biases
    own = said.get(place, (1,) if alone else ())
    if own:
      found[place] = {place: own}
  if not found:
    raise InputError("unit: neuron needs an array of two axes or more that is not called embedding; use weight")
  for place, (path, leaf) in enumerate(named):
    if place in found or place in said:
      continue
    fits = [m for m in found if parents[m] == parents[place] and _units(named[m][1].shape, found[m][m]) == leaf.shape]
    if len(fits) > 1:
      names = " and ".join(named[matrix][0] for matrix in fits)
      hint = "keep each matrix with its bias under a key of their own, or give the bias axes () in neuron_axes"
      raise InputError(f"unit: neuron cannot tell whether {path} belongs to {names}; {hint}")
    for matrix in fits:
      found[matrix][place] = tuple(range(len(leaf.shape)))
  return [dict(sorted(layer.items())) for layer in found.values()]


def _said(params: Params, axes: Axes) -> dict[int, tuple[int, ...]]:
  """The axes that were given for each leaf, ascending and from 0."""
  named, said = named_leaves(params), {}
  for name, own in axes:
    places = [place for place, (path, _) in enumerate(named) if f"/{path}".endswith(f"/{name}")]
    known = ", ".join(path for path, _ in named)
    require(bool(places), "neuron_axes", name, f"the path of an array, or the end of it: {known}")
    for place in places:
      path, leaf = named[place]
      size = len(leaf.shape)
      fine = all(-size <= axis < size for axis in own) and len({axis % size for axis in own}) == len(own) < max(size, 1)
      require(fine, f"neuron_axes of {path}", own, f"some of its {size} axes, each once, and not all")
      said[place] = tuple(sorted(axis % size for axis in own))
  return said


def _units(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
  return tuple(shape[axis] for axis in axes)


def by_unit(x: Any, axes: tuple[int, ...]) -> Any:
  """An array as [weights of a neuron, neurons]."""
  number = math.prod(_units(x.shape, axes))
  return jnp.moveaxis(x, axes, range(-len(axes), 0)).reshape(-1, number)


def over_weights(values_U: Any, *, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
  """A value for each neuron, on all weights of an array."""
  others = [axis for axis in range(len(shape)) if axis not in axes]
  return jnp.broadcast_to(jnp.expand_dims(values_U.reshape(_units(shape, axes)), others), shape)
