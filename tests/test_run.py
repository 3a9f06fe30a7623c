"""Training in one call: which pytree each seed starts from, and what of it is refused in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import finetune_wrappers as fw
from finetune_wrappers.training.run import starts_of

TASK = fw.CounterTask(num_letters=3, vocab_size=3, num_pads=1)
OPTIMIZER = fw.SGD.paper(4, eval_every=2)


def forward(layers, tokens):
  """Two layers kept as a list."""
  hidden = jax.nn.relu(jax.nn.one_hot(tokens, 5) @ layers[0])
  return hidden @ layers[1]


def layers_of(seed):
  generator = np.random.default_rng(seed)
  return [generator.normal(size=shape).astype(np.float32) for shape in ((5, 4), (4, 4))]


def trained(params, model=forward, **more):
  recipe = {"objective": fw.Answers(target="ft", c_tr=0.0), "optimizer": OPTIMIZER, "evaluator": fw.Accuracies(8)}
  return fw.train(fw.FunctionModel(model), params, TASK, learning_rate=0.1, **recipe, **more)


def same(found, expected):
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_list_of_layers_trains_as_the_same_layers_in_a_dict():
  named = dict(zip("ab", layers_of(0), strict=True))
  expected = trained(named, lambda layers, tokens: forward([layers["a"], layers["b"]], tokens), seeds=(0, 1))
  found = trained(layers_of(0), per_seed=False, seeds=(0, 1))
  assert [type(run.params) for run in found] == [list, list]
  for own, other in zip(found, expected, strict=True):
    same(own.params, [other.params["a"], other.params["b"]])
  assert (found[0].params[0] != found[1].params[0]).any()


@pytest.mark.parametrize("kind", [list, tuple])
def test_each_seed_starts_from_its_own_pytree(kind):
  found = trained(kind([layers_of(0), layers_of(1)]), per_seed=True, seeds=(0, 1))
  for seed, run in enumerate(found):
    (alone,) = trained(layers_of(seed), per_seed=False, seeds=(seed,))
    np.testing.assert_allclose(run.params[0], alone.params[0], rtol=1e-5)


@pytest.mark.parametrize(
  ("params", "more", "message"),
  [
    ([layers_of(0), layers_of(1)], {}, "per_seed: missing, as params is a list; say True if .*, False if .*"),
    ((layers_of(0), layers_of(1)), {}, "per_seed: missing, as params is a tuple; .*"),
    ([layers_of(0)], {"per_seed": True}, "params: 'a list of 1' is not allowed; use .* each of 2 seeds"),
    ({"a": jnp.ones(2), "b": jnp.ones(2)}, {"per_seed": True}, "params: 'a dict' is not allowed; .* each of 2 seeds"),
    ([layers_of(0), layers_of(1)[:1]], {"per_seed": True}, "params: 'a list of different pytrees' .*"),
    ([layers_of(0), layers_of(1)[::-1]], {"per_seed": True}, "params: 'a list of different pytrees' .* same shapes"),
    (layers_of(0), {"per_seed": False, "seeds": ()}, r"seeds: \(\) is not allowed; use one or more"),
  ],
)
def test_what_no_seed_can_start_from_is_one_line_before_training(params, more, message):
  with pytest.raises(fw.InputError, match=rf"\A{message}\Z") as refusal:
    trained(params, **{"seeds": (0, 1), **more})
  assert "\n" not in str(refusal.value)


def test_revival_refuses_the_control_by_its_name_before_anything_is_trained():
  model = fw.FunctionModel(forward)
  recipe = {"optimizer": OPTIMIZER, "learning_rate": 0.1, "seeds": (0, 1)}
  with pytest.raises(fw.InputError, match=r"\Acontrol: 'a list of 1' is not allowed; use .* each of 2 seeds\Z"):
    fw.revive(model, [{}, {}], TASK, control=[{}], per_seed=True, **recipe)
  with pytest.raises(fw.InputError, match=r"\Aper_seed: missing, as control is a list; "):
    fw.revive(model, {}, TASK, control=[{}], **recipe)
  with pytest.raises(fw.InputError, match=r"\Athreshold: 2 is not a number"):
    fw.revive(model, {}, TASK, control={}, threshold=2, **recipe)
  assert starts_of((1, 2), (5, 6), per_seed=True) == [1, 2]
