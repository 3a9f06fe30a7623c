"""Neurons of any pytree: axes, biases and what is refused, against sums written out with NumPy."""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune_wrappers.analysis import PruneSettings, masks, prune
from finetune_wrappers.models.model import FunctionModel
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.types import InputError

HEADS = (("query", (1, 2)), ("out", (2,)))
Dense = collections.namedtuple("Dense", "w b")


def drawn(*shape, seed=0):
  return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def everything(params):
  return masks.scope_mask("all", params)


def cut(params, k, axes=()):
  """The weights that pruning K neurons by these scores leaves, 1, and zeroes, 0, as NumPy."""
  scores = masks.unit_scores(params, scope=everything(params), unit="neuron", axes=axes)
  places = masks.ranks(scores, "neuron", axes=axes)
  return jax.tree.map(np.asarray, masks.keep_mask(places, k))


@pytest.mark.parametrize("outputs", [(1, 2), (2, 1), (-1, -2)])
def test_a_neuron_of_a_kernel_with_heads_is_one_unit_of_one_head(outputs):
  params = {"attn": {"query": drawn(5, 2, 3), "bias": drawn(2, 3), "out": drawn(2, 3, 4)}}
  own = params["attn"]
  totals = {("query", h, k): own["query"][:, h, k].sum() + own["bias"][h, k] for h in range(2) for k in range(3)}
  totals |= {("out", d): own["out"][..., d].sum() for d in range(4)}
  order = sorted(totals, key=lambda unit: -totals[unit])
  for count in range(len(order) + 2):
    expected = jax.tree.map(np.ones_like, params)
    for layer, *index in order[:count]:
      expected["attn"][layer][(..., *index)] = 0.0
      if layer == "query":
        expected["attn"]["bias"][tuple(index)] = 0.0
    jax.tree.map(np.testing.assert_array_equal, cut(params, count, (("query", outputs), HEADS[1])), expected)


@pytest.mark.parametrize(
  "make",
  [
    lambda w, b: [[w[0], b[0]], [w[1], b[1]]],
    lambda w, b: [(w[0], b[0]), (w[1], b[1])],
    lambda w, b: (Dense(w[0], b[0]), Dense(w[1], b[1])),
    lambda w, b: [{"w": w[0], "b": b[0]}, {"w": w[1], "b": b[1]}],
    lambda w, b: {"layers": [{"weight-1": w[0], "x.y": b[0]}, {"weight-1": w[1], "x.y": b[1]}]},
    lambda w, b: [w[0], b[0], w[1], b[1]],
  ],
)
def test_any_pytree_has_the_neurons_of_its_matrices(make):
  kernels, biases = (drawn(5, 3), drawn(3, 4)), (drawn(3), drawn(4))
  params = make(kernels, biases)
  totals = np.concatenate([w.sum(axis=0) + b for w, b in zip(kernels, biases, strict=True)])
  order = np.argsort(-totals, kind="stable")
  for count in range(8):
    kept = np.ones(7, np.float32)
    kept[order[:count]] = 0.0
    parts = kept[:3], kept[3:]
    expected = make([np.broadcast_to(p, w.shape) for p, w in zip(parts, kernels, strict=True)], parts)
    jax.tree.map(np.testing.assert_array_equal, cut(params, count), expected)
  for score in (masks.random_scores(jax.random.key(0), scope=everything(params), unit="neuron"), params):
    assert jax.tree.structure(masks.ranks(score, "neuron", 2)) == jax.tree.structure(params)
  ids = jax.tree.leaves(masks.random_scores(jax.random.key(0), scope=everything(params), unit="neuron"))
  assert len(np.unique(np.concatenate([np.ravel(own) for own in ids]))) == 7


def test_axes_turn_a_matrix_over_leave_arrays_out_and_go_by_the_end_of_a_path():
  params = {"wte": drawn(6, 3), "a": {"weight": drawn(4, 3), "b": drawn(4)}, "z_weight": drawn(2, 2)}
  axes = (("weight", (0,)), ("wte", ()), ("z_weight", ()))
  rows = params["a"]["weight"].sum(axis=1) + params["a"]["b"]
  for count in range(6):
    found, best = cut(params, count, axes), np.argsort(-rows)[:count]
    assert found["wte"].all() and found["z_weight"].all()
    np.testing.assert_array_equal(found["a"]["b"] == 0, np.isin(np.arange(4), best))
    np.testing.assert_array_equal(found["a"]["weight"] == 0, np.isin(np.arange(4), best)[:, None].repeat(3, axis=1))


@pytest.mark.parametrize(
  ("params", "axes", "message"),
  [
    ({"q": {"kernel": drawn(5, 2, 3)}}, (), r"unit: neuron of q/kernel \(5, 2, 3\) may be along any of its axes; .*"),
    (
      {"w": drawn(3, 4), "v": drawn(3, 4), "b": drawn(4)},
      (),
      "unit: neuron cannot tell whether b belongs .* v and w;.*",
    ),
    ({"b": drawn(4)}, (), "unit: neuron needs an array of two axes or more .*"),
    (drawn(4), (), "unit: neuron needs an array of two axes or more .*"),
    ({"embedding": drawn(3, 4)}, (), "unit: neuron needs an array of two axes or more .*"),
    ({"w": drawn(3, 4)}, (("w", ()),), "unit: neuron needs an array of two axes or more .*"),
    ({"w": drawn(3, 4)}, (("q", (0,)),), "neuron_axes: 'q' is not allowed; use the path of an array, .*: w"),
    ({"w": drawn(3, 4)}, (("w", (2,)),), r"neuron_axes of w: \(2,\) is not allowed; use some of its 2 axes.*"),
    ({"w": drawn(3, 4)}, (("w", (1, -1)),), r"neuron_axes of w: \(1, -1\) is not allowed.*"),
    ({"w": drawn(3, 4)}, (("w", (0, 1)),), r"neuron_axes of w: \(0, 1\) is not allowed.*not all"),
  ],
)
def test_neurons_that_cannot_be_told_are_one_line(params, axes, message):
  with pytest.raises(InputError, match=rf"\A{message}\Z") as refusal:
    masks.unit_scores(params, scope=everything(params), unit="neuron", axes=axes)
  assert "\n" not in str(refusal.value)


def test_a_bias_that_fits_two_matrices_can_be_left_out():
  params = {"w": drawn(3, 4), "v": drawn(3, 4), "b": drawn(4)}
  found = cut(params, 8, (("b", ()),))
  assert found["b"].all() and not found["w"].any() and not found["v"].any()


TREES = [
  {"blocks": [{"w": drawn(3, 4)}], "head": drawn(4)},
  {"blocks_0": {"kernel": drawn(3, 4)}, "token": {"embedding": drawn(3, 4)}},
  [drawn(3, 4), drawn(4)],
  {"layers.0": {"weight-hh": drawn(4, 4), "a b": drawn(2)}},
  {"a" * 300: drawn(2)},
  drawn(3),
]


@pytest.mark.parametrize("params", TREES)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_scope_that_the_message_offers_is_never_refused(params, compiled):
  with pytest.raises(InputError) as refusal:
    masks.check_scope("no such", params, compiled=compiled)
  names = re.sub(r"\Ascope: .* is not one of (.*), or the beginning of such a path\Z", r"\1", str(refusal.value))
  assert ("near_zero" in names) == compiled
  for name in names.split(", "):
    for scope in {name, name.rpartition("/")[0] or name}:
      PruneSettings(scopes=(scope,))
      mask = masks.scope_mask(scope, params, compiled=jax.tree.map(np.zeros_like, params) if compiled else None)
      assert any(leaf.any() for leaf in jax.tree.leaves(mask)), scope


def test_a_list_of_layers_with_heads_is_pruned_from_end_to_end():
  task = CounterTask(num_letters=3, vocab_size=3, num_pads=1)
  params = [drawn(5, 2, 3), (drawn(2, 3, 5), drawn(5))]

  def logits(params, tokens):
    units = jax.nn.relu(jnp.einsum("btv,vhk->bthk", jax.nn.one_hot(tokens, 5), params[0]))
    return jnp.einsum("bthk,hkc->btc", units, params[1][0]) + params[1][1]

  def found(**changed):
    settings = PruneSettings(units=("neuron",), ks=(0, 3, 10), eval_size=20, batch_size=20, random_draws=2, **changed)
    return prune(FunctionModel(logits, precision="highest"), params, task, settings)

  with pytest.raises(InputError, match=r"\Aunit: neuron of 0 \(5, 2, 3\) may be"):
    found()
  curve = found(neuron_axes=(("0", (1, 2)), ("1/0", (2,))), scores=("gradient", "gradient_iterative"))
  rows = curve.curves["all", "neuron"]
  for score in ("gradient", "gradient_iterative", "random"):
    assert rows[score].shape == (3, 4)
    np.testing.assert_allclose(rows[score][2], rows["gradient"][2])  # all 10 neurons are gone
