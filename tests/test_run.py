"""Training in one call: which pytree each seed starts from, and what of it is refused in one line."""

import dataclasses
import math

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
  return [generator.normal(size=shape).astype(np.float32) for shape in ((5, 4), (4, 5))]


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
    (layers_of(0), {"per_seed": False, "seeds": ()}, "seeds: empty; give at least one, .*"),
    (layers_of(0), {"per_seed": False, "seeds": (0, 0)}, r"seeds: \(0, 0\) has a value twice; .*"),
    (layers_of(0), {"per_seed": False, "seeds": 3}, "seeds: 3 is not a tuple, .*"),
    ({"a": np.ones(2), "n": {"step": np.int32(3)}}, {}, "params n/step: 'int32' is not allowed; use floats; .*"),
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
  with pytest.raises(fw.InputError, match=r"\Aseeds: \(1, 1\) has a value twice"):
    fw.revive(model, {}, TASK, control={}, **{**recipe, "seeds": (1, 1)})
  with pytest.raises(fw.InputError, match=r"\Athreshold: 2 is not a number"):
    fw.revive(model, {}, TASK, control={}, threshold=2, **recipe)
  assert starts_of((1.0, 2.0), (5, 6), per_seed=True) == [1.0, 2.0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logging(fw.Answers):
  logs = ("twice",)

  def loss(self, *args):
    loss, _ = super().loss(*args)
    return loss, {"twice": 2 * loss}


def test_rows_have_metrics_loss_and_logs_of_every_evaluation_that_has_them():
  """Weights of zero answer five labels alike and have no gradient, so the loss stays log(5)."""
  zeros = [np.zeros_like(layer) for layer in layers_of(0)]
  recipe = {"objective": Logging(target="ft", c_tr=0.0), "optimizer": OPTIMIZER, "evaluator": fw.Accuracies(8)}
  (run,) = fw.train(fw.FunctionModel(forward), zeros, TASK, learning_rate=0.5, per_seed=False, seeds=(3,), **recipe)
  rows = run.rows()
  assert {(row["task"], row["seed"], row["c_tr"], row["target"]) for row in rows} == {(TASK.name, 3, 0.0, "ft")}
  for name, expected in (("loss", math.log(5)), ("twice", 2 * math.log(5))):
    values = {row["step"]: row["value"] for row in rows if row["metric"] == name}
    assert values == pytest.approx({2: expected, 4: expected}, rel=1e-6)
  assert [row["step"] for row in rows if row["metric"] == "acc_pt" and row["c_te"] == 0] == [0, 2, 4]
  gone = dataclasses.replace(run, diverged_step=3).rows()
  assert (
    {row["step"] for row in gone if row["value"] is None} == {row["step"] for row in gone if "diverged" in row} == {4}
  )
  assert [fw.make_row(experiment="own", setting="own", **row) for row in gone]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hot(fw.Subset):
  heat: float = 2.0

  def model(self, model):
    return fw.FunctionModel(lambda params, tokens: self.heat * model.forward(params, tokens).logits)


def test_a_run_has_the_model_of_its_parameters():
  tokens = np.array([[0, 1, 2, 3, 4]])
  (run,) = trained(layers_of(0), per_seed=False, method=Hot())
  expected = 2 * forward(run.params, tokens)
  np.testing.assert_allclose(run.model.forward(run.params, tokens).logits, expected, rtol=1e-6)
  (plain,) = trained(layers_of(0), per_seed=False)
  assert plain.model == fw.FunctionModel(forward)


def test_numpys_numbers_are_the_numbers_that_they_hold():
  runs = trained(layers_of(0), per_seed=False, seeds=np.arange(2))
  assert [(type(run.stage.seed), run.stage.seed) for run in runs] == [(int, 0), (int, 1)]
  own = fw.Answers(c_tr=np.float32(0.5)), fw.PruneSettings(ks=(np.int64(0), np.uint8(4))), fw.Accuracies(np.int16(8))
  plain = fw.Answers(c_tr=0.5), fw.PruneSettings(ks=(0, 4)), fw.Accuracies(8)
  assert own == plain
  stages = [fw.InitStage(model=part, seed=seed) for part, seed in ((own, np.int32(7)), (plain, 7))]
  assert stages[0].key == stages[1].key and type(own[1].ks[1]) is int and type(own[0].c_tr) is float
  for bad in (True, np.True_, np.float32(1.0)):
    with pytest.raises(fw.InputError, match=r"\Aseed: [^\n]* is not a whole number [^\n]*\Z"):
      fw.InitStage(model=None, seed=bad)
