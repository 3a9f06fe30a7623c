"""The order of pruning: random over units, one after another with the gradient taken anew."""

import jax
import numpy as np
import pytest
from test_masks import arrays, flat, neurons, places_of, shaped_params

from finetune_wrappers.analysis import masks
from finetune_wrappers.types import InputError


@pytest.fixture(scope="module")
def params():
  return shaped_params()


def test_random_order_is_uniform_over_weights_in_scope_and_goes_by_its_key(params):
  scope = masks.scope_mask("blocks_1", params)
  first, again, other = (
    flat(masks.random_scores(jax.random.key(seed), scope=scope, unit="weight")) for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  inside = flat(scope).astype(bool)
  assert np.isneginf(first[~inside]).all() and (first[inside] == other[inside]).mean() < 0.01
  assert len(np.unique(first[inside])) > 0.99 * inside.sum() and first[inside].min() >= 0 and first[inside].max() < 1


def test_every_neuron_is_as_likely_to_be_pruned_first_however_many_weights_it_has(params):
  """With summed uniform numbers the neurons with most inputs would always win."""
  scope = masks.scope_mask("all", params)
  draw = jax.jit(lambda key: masks.ranks(masks.random_scores(key, scope=scope, unit="neuron"), "neuron"))
  layers = [path for path in arrays(params) if path.endswith("/kernel")]
  sizes = np.array([arrays(params)[path].shape[1] for path in layers])
  hits = np.zeros(len(layers))
  draws = 300
  for key in jax.random.split(jax.random.key(0), draws):
    places = arrays(draw(key))
    hits += [(places[path][0] < 5).sum() for path in layers]
    assert all((places[path] >= 5).all() for path in places if path.endswith("embedding"))
  expected = 5 * draws * sizes / sizes.sum()
  assert hits.sum() == 5 * draws
  np.testing.assert_array_less(np.abs(hits - expected), 4.5 * np.sqrt(expected))


def test_the_magnitude_of_a_neuron_is_the_mean_over_its_weights(params):
  scope = masks.scope_mask("blocks_0", params)
  sizes = jax.tree.map(np.abs, params)
  found = arrays(masks.unit_scores(sizes, scope=scope, unit="neuron", mean=True))
  for layer, unit in neurons(params):
    own = np.append(arrays(sizes)[f"{layer}/kernel"][:, unit], arrays(sizes)[f"{layer}/bias"][unit])
    expected = own.mean() if layer.startswith("blocks_0") else -np.inf
    np.testing.assert_allclose(found[f"{layer}/kernel"][:, unit], expected, rtol=1e-5)


def quadratic(params):
  """A loss whose gradient at one weight depends on the others, with its gradient in NumPy."""
  total = flat(params).size
  generator = np.random.default_rng(11)
  matrix = generator.normal(size=(total, total)).astype(np.float32) / np.sqrt(total)
  matrix, slope = 3 * (matrix + matrix.T), generator.normal(size=total).astype(np.float32)

  def gradient(weights):
    vector, unravel = jax.flatten_util.ravel_pytree(weights)
    return unravel(matrix @ vector + slope)

  return gradient, lambda vector: matrix @ vector + slope


def one_after_another(params, gradient_of, groups, count, every):
  """The order in which a plain loop zeroes the groups of places, taking the gradient anew after every few."""
  vector, left, order = flat(params).copy(), list(range(len(groups))), []
  while len(order) < count:
    scores = vector * gradient_of(vector)
    found = sorted(left, key=lambda group: -scores[groups[group]].sum())[:every]
    for group in found:
      vector[groups[group]] = 0.0
      left.remove(group)
    order += found
  return order


@pytest.mark.parametrize(("unit", "every"), [("weight", 1), ("neuron", 1), ("neuron", 3)])
def test_iterative_pruning_takes_the_gradient_anew(params, unit, every):
  numbered = arrays(jax.tree.unflatten(jax.tree.structure(params), np.split(
    np.arange(flat(params).size), np.cumsum([leaf.size for leaf in jax.tree.leaves(params)])[:-1]
  )))  # fmt: skip
  ids = {path: numbered[path].reshape(leaf.shape) for path, leaf in arrays(params).items()}
  if unit == "weight":
    groups = [np.array([place]) for place in range(flat(params).size)]
  else:
    layers = neurons(params)
    groups = [np.append(ids[f"{path}/kernel"][:, number], ids[f"{path}/bias"][number]) for path, number in layers]
  gradient, gradient_of = quadratic(params)
  scope = masks.scope_mask("all", params)
  places = flat(masks.iterative_ranks(params, gradient, scope=scope, unit=unit, count=9, every=every))
  order = one_after_another(params, gradient_of, groups, 9, every)
  assert [set(places[groups[group]]) for group in order] == [{place} for place in range(9)]
  one_shot = flat(places_of(masks.weight_scores("gradient", params, grads=gradient(params)), scope, unit))
  assert (places < 9).sum() == sum(groups[group].size for group in order)
  assert (one_shot[places < 9] != places[places < 9]).any()  # the example tells the two apart


@pytest.mark.parametrize("field", ["count", "every"])
def test_iterative_pruning_of_nothing_is_refused(params, field):
  counts = {"count": 3, "every": 1, field: 0}
  with pytest.raises(InputError, match=rf"\A{field}: 0 is not allowed"):
    masks.iterative_ranks(params, lambda w: w, scope=masks.scope_mask("all", params), unit="weight", **counts)
