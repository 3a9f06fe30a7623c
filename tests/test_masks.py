"""Pruning against NumPy: scores, scopes, exactly K weights or neurons at zero, ties, and curves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from finetune_wrappers.analysis import masks
from finetune_wrappers.models.tracr_model import TracrTransformer
from finetune_wrappers.types import InputError

MODEL = TracrTransformer(
  vocab_size=5, max_positions=4, width=6, num_layers=2, num_heads=1, key_size=3, mlp_hidden_size=4,
  answer_channels=(0, 2, 5),
)  # fmt: skip
TOKENS = np.random.default_rng(0).integers(0, 5, (16, 4))
LABELS = np.random.default_rng(1).integers(0, 3, 16)
SCOPES = ("all", "near_zero", "matrices", "blocks_1", "blocks_0/attn/value", "pos_embed")


def like(tree, draw, seed=0):
  """A pytree of that shape, filled by draw(generator, shape)."""
  generator = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: np.asarray(draw(generator, leaf.shape), np.float32), tree)


def normal(generator, shape):
  return generator.normal(size=shape)


def arrays(tree, prefix=""):
  """{path: array}, paths in alphabetical order."""
  if not isinstance(tree, dict):
    return {prefix: np.asarray(tree)}
  return {
    path: leaf for name in sorted(tree) for path, leaf in arrays(tree[name], f"{prefix}/{name}".strip("/")).items()
  }


def flat(tree):
  return np.concatenate([leaf.ravel() for leaf in arrays(tree).values()])


def neurons(tree):
  """(path of the layer, output unit) of every neuron, in order."""
  kernels = {path: leaf for path, leaf in arrays(tree).items() if path.endswith("/kernel")}
  return [(path.removesuffix("/kernel"), unit) for path, leaf in kernels.items() for unit in range(leaf.shape[1])]


def places_of(scores, scope, unit):
  return masks.ranks(masks.unit_scores(scores, scope=scope, unit=unit), unit)


def shaped_params():
  return like(jax.eval_shape(MODEL.init, jax.random.key(0), TOKENS)["params"], normal)


@pytest.fixture(scope="module")
def params():
  return shaped_params()


@pytest.fixture(scope="module")
def compiled(params):
  """Weights of the sizes that Tracr leaves, 0.5 itself among them."""
  return like(params, lambda generator, shape: generator.choice([0.0, 0.4, -0.4, 0.5, -1.0, 30.0], shape), seed=3)


@pytest.fixture(scope="module")
def scores(params):
  """Few different values, so that most are tied."""
  return like(params, lambda generator, shape: generator.integers(-3, 4, shape), seed=5)


@pytest.mark.parametrize(
  ("score", "expected"),
  [
    ("gradient", lambda w, g: w * g),
    ("gradient_abs", lambda w, g: np.sqrt(w**2 * g**2)),
    ("magnitude", lambda w, g: np.sqrt(w**2)),
  ],
)
def test_scores_of_weights_are_numpys(params, score, expected):
  grads = like(params, normal, seed=1)
  found, expected = arrays(masks.weight_scores(score, params, grads=grads)), expected(flat(params), flat(grads))
  assert list(found) == list(arrays(params))
  np.testing.assert_allclose(np.concatenate([leaf.ravel() for leaf in found.values()]), expected, rtol=1e-5)


def test_the_gradient_score_is_how_much_the_loss_falls_when_a_small_weight_is_zeroed(params):
  path = ("blocks_1", "mlp", "linear_2", "kernel")
  small = jax.tree_util.tree_map_with_path(
    lambda p, w: 1e-3 * w if tuple(entry.key for entry in p) == path else w, params
  )

  @jax.jit
  def loss(weights):
    logits = MODEL.apply({"params": weights}, TOKENS).logits[:, 2]
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

  with jax.default_matmul_precision("highest"):
    promised = arrays(masks.weight_scores("gradient", small, grads=jax.grad(loss)(small)))["/".join(path)]
    kernel, falls = small["blocks_1"]["mlp"]["linear_2"]["kernel"], np.zeros_like(promised)
    for index in np.ndindex(kernel.shape):
      zeroed = jax.tree.map(np.array, small)
      zeroed["blocks_1"]["mlp"]["linear_2"]["kernel"][index] = 0.0
      falls[index] = loss(small) - loss(zeroed)
  assert np.abs(promised).max() > 3e-3
  np.testing.assert_allclose(promised, falls, atol=0.03 * np.abs(falls).max())
  assert falls.ravel()[promised.argmax()] > 0 > falls.ravel()[promised.argmin()]


def test_unknown_score_unit_and_scope_are_refused_with_what_is_allowed(params):
  with pytest.raises(InputError, match="score: 'luck' is not one of gradient, gradient_abs, magnitude"):
    masks.weight_scores("luck", params, grads=params)
  with pytest.raises(InputError, match="unit: 'head' is not one of weight, neuron"):
    masks.unit_scores(params, scope=masks.scope_mask("all", params), unit="head")
  for scope in ("blocks_7", "block", "kernel", ""):
    with pytest.raises(InputError, match=rf"\Ascope: {scope!r} is not one of all, matrices, blocks, ") as caught:
      masks.scope_mask(scope, params)
    assert all(path in str(caught.value) for path in arrays(params)) and "\n" not in str(caught.value)
  with pytest.raises(InputError, match="near_zero is only possible for a compiled model"):
    masks.scope_mask("near_zero", params)


def test_scopes_hold_the_weights_that_they_name(params, compiled):
  inside = {
    "all": lambda path: True,
    "matrices": lambda path: path.split("/")[-1] == "kernel",
    "blocks": lambda path: path.startswith("blocks_"),
    "blocks_1": lambda path: path.split("/")[0] == "blocks_1",
    "blocks_0/attn/value": lambda path: path in ("blocks_0/attn/value/kernel", "blocks_0/attn/value/bias"),
    "blocks_1/mlp/linear_1/bias": lambda path: path == "blocks_1/mlp/linear_1/bias",
  }
  many = {**params, "blocks_10": params["blocks_1"]}  # begins as blocks_1 does
  for scope, belongs in inside.items():
    for path, mask in arrays(masks.scope_mask(scope, many)).items():
      assert mask.dtype == bool and mask.shape == arrays(many)[path].shape and (mask == belongs(path)).all(), path
  near_zero = flat(masks.scope_mask("near_zero", params, compiled=compiled))
  np.testing.assert_array_equal(near_zero, np.isin(flat(compiled), np.float32([0.0, 0.4, -0.4])))


@pytest.mark.parametrize("k", range(21))
def test_exactly_k_weights_are_at_zero_and_ties_go_by_position(params, k):
  equal = jax.tree.map(np.ones_like, params)
  mask = masks.keep_mask(places_of(equal, masks.scope_mask("all", params), "weight"), k)
  np.testing.assert_array_equal(flat(mask), np.arange(flat(params).size) >= k)
  pruned = flat(masks.apply_mask(params, mask))
  np.testing.assert_array_equal(pruned, np.where(np.arange(pruned.size) < k, 0.0, flat(params)))


@pytest.mark.parametrize("scope", SCOPES)
def test_the_k_highest_in_scope_are_cut_and_nothing_else_however_large_k(params, compiled, scores, scope):
  scope = masks.scope_mask(scope, params, compiled=compiled)
  places, values, allowed = places_of(scores, scope, "weight"), flat(scores), flat(scope)
  order = sorted(np.flatnonzero(allowed), key=lambda i: (-values[i], i))
  for k in (0, 1, 5, 20, len(order), len(order) + 1, values.size, values.size + 1, 10**9):
    cut = np.flatnonzero(flat(masks.keep_mask(places, k)) == 0)
    assert set(cut) == set(order[:k])


@pytest.mark.parametrize("scope", SCOPES)
def test_a_neurons_score_is_the_sum_over_its_weights_in_scope(params, compiled, scope):
  values, scope = like(params, normal, seed=7), masks.scope_mask(scope, params, compiled=compiled)
  found, value, allowed = (
    arrays(tree) for tree in (masks.unit_scores(values, scope=scope, unit="neuron"), values, scope)
  )
  expected = {path: np.full(leaf.shape, -np.inf) for path, leaf in value.items()}
  for layer, unit in neurons(params):
    members = [(f"{layer}/kernel", (row, unit)) for row in range(value[f"{layer}/kernel"].shape[0])]
    members = [(path, index) for path, index in [*members, (f"{layer}/bias", (unit,))] if allowed[path][index]]
    for path, index in members:
      expected[path][index] = sum(float(value[other][where]) for other, where in members)
  for path, leaf in expected.items():
    np.testing.assert_allclose(found[path], leaf, rtol=1e-4, atol=1e-5, err_msg=path)


def cut_neurons(mask, before):
  """Neurons that are at zero whole, after checking that nothing else is."""
  mask, cut = {path: leaf.copy() for path, leaf in arrays(mask).items()}, []
  for layer, unit in neurons(before):
    weights = np.append(mask[f"{layer}/kernel"][:, unit], mask[f"{layer}/bias"][unit])
    assert weights.min() == weights.max(), (layer, unit)
    cut += [(layer, unit)] if weights.max() == 0 else []
  assert all(mask[path].all() for path in mask if path.endswith("embedding"))
  return cut


@pytest.mark.parametrize("tied", [False, True])
def test_exactly_k_neurons_are_at_zero_the_highest_first_and_embeddings_never(params, tied):
  values = jax.tree.map(np.zeros_like, params) if tied else like(params, normal, seed=8)
  values["token_embed"]["embedding"][:] = 100.0
  score, all_neurons = arrays(values), neurons(params)
  total = [score[f"{layer}/kernel"][:, unit].sum() + score[f"{layer}/bias"][unit] for layer, unit in all_neurons]
  order = [all_neurons[i] for i in sorted(range(len(total)), key=lambda i: (-total[i], i))]
  places = places_of(values, masks.scope_mask("all", params), "neuron")
  for k in (*range(21), len(order), len(order) + 1, flat(params).size, 10**9):
    assert set(cut_neurons(masks.keep_mask(places, k), params)) == set(order[:k])


def test_weights_of_a_neuron_that_are_out_of_scope_stay(params, compiled):
  scope = masks.scope_mask("near_zero", params, compiled=compiled)
  places = places_of(like(params, normal, seed=9), scope, "neuron")
  everything = arrays(masks.keep_mask(places, len(neurons(params))))
  for path, allowed in arrays(scope).items():
    np.testing.assert_array_equal(everything[path] == 0, allowed & (not path.endswith("embedding")), err_msg=path)


@pytest.mark.parametrize("unit", ["weight", "neuron"])
def test_a_traced_k_cuts_what_a_static_one_does(params, scores, unit):
  places = places_of(scores, masks.scope_mask("all", params), unit)
  traced = jax.jit(masks.keep_mask)
  for k in (0, 1, 7, 20):
    np.testing.assert_array_equal(flat(traced(places, jnp.int32(k))), flat(masks.keep_mask(places, k)))


def test_a_curve_is_its_points_one_by_one(params, scores):
  places = places_of(scores, masks.scope_mask("all", params), "weight")

  def measure(weights):
    return MODEL.apply({"params": weights}, TOKENS).logits[0, 2]

  order = sorted(range(flat(params).size), key=lambda i: (-flat(scores)[i], i))
  with jax.default_matmul_precision("highest"):
    curve = masks.curve(params, places=places, ks=(0, 3, 40, 3), measure=measure)
    for k, value in zip((0, 3, 40, 3), curve, strict=True):
      weights = np.where(np.isin(np.arange(len(order)), order[:k]), 0.0, flat(params))
      leaves, structure = jax.tree.flatten(params)
      parts = np.split(weights, np.cumsum([leaf.size for leaf in leaves])[:-1])
      pruned = structure.unflatten([part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])
      np.testing.assert_allclose(value, measure(pruned), rtol=1e-5, atol=1e-5)


def test_first_units_are_paths_and_indices_in_the_order_of_pruning(params):
  values = jax.tree.map(np.zeros_like, params)
  values["blocks_1"]["attn"]["value"]["kernel"][4, 2] = 9.0
  values["blocks_0"]["mlp"]["linear_2"]["bias"][3] = 12.0
  values["token_embed"]["embedding"][1, 5] = 9.0
  values["blocks_1"]["attn"]["value"]["kernel"][0, 1] = 11.0
  places = places_of(values, masks.scope_mask("all", params), "weight")
  expected = [
    ("blocks_0/mlp/linear_2/bias", (3,)),
    ("blocks_1/attn/value/kernel", (0, 1)),
    ("blocks_1/attn/value/kernel", (4, 2)),
    ("token_embed/embedding", (1, 5)),
    ("blocks_0/attn/key/bias", (0,)),
  ]
  for k in range(6):
    assert masks.first_units(places, k) == expected[:k]
  narrow = places_of(values, masks.scope_mask("token_embed/embedding", params), "weight")
  assert masks.first_units(narrow, 2) == [("token_embed/embedding", (1, 5)), ("token_embed/embedding", (0, 0))]
  assert len(masks.first_units(narrow, 10_000)) == params["token_embed"]["embedding"].size


@pytest.mark.parametrize("unit", masks.UNITS)
@pytest.mark.parametrize("count", [1, 7, 10_000])
def test_the_first_units_alone_are_placed_as_among_all(params, compiled, scores, unit, count):
  scope = masks.scope_mask("near_zero", params, compiled=compiled)
  units = masks.unit_scores(scores, scope=scope, unit=unit)
  whole, some = flat(masks.ranks(units, unit)), flat(masks.ranks(units, unit, count))
  np.testing.assert_array_equal(some, np.where(whole < count, whole, np.iinfo(np.int32).max))
