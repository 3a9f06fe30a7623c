"""Which parameters train: subsets against zeroed gradients and SGD by hand, and LoRA as a method of one's own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from by_hand import BATCH, SAME_BATCH, assert_close, flat, nested, trained_by_sgd
from test_objectives import at, drawn_by, losses_written_out, stage_with, trained_by_trainer
from tiny import LIGHT, MODEL, TASK, fresh, lane_of, model_of, params_of, recipe_with

from finetune_wrappers.rules import ABOVE_0, whole
from finetune_wrappers.training import step
from finetune_wrappers.training.methods import Method, Subset, mask_of
from finetune_wrappers.training.objectives import Answers
from finetune_wrappers.training.swept import shared, swept
from finetune_wrappers.types import InputError

PARAMS = params_of(MODEL)
KINDS = {"all": {"kernel", "bias", "embedding"}, "matrices": {"kernel"}, "no_embeddings": {"kernel", "bias"}}


def trained_by_step(model, recipe, params, lane, stop):
  return jax.jit(lambda state: step.train(model, recipe, lane, state, start=0, stop=stop))(fresh(recipe, params))


@pytest.mark.parametrize("trained", KINDS)
def test_subset_picks_leaves_by_their_kind(trained):
  assert {name.split("/")[-1] for name in flat(PARAMS)} == KINDS["all"]
  for name, trains in flat(mask_of(PARAMS, trained)).items():
    assert trains == (name.split("/")[-1] in KINDS[trained]), name


@pytest.mark.parametrize(
  ("path", "number"),
  [("blocks_1", 1), ("blocks_1/attn/key", 1), ("blocks_1/attn/key/kernel", 1), ("blocks", 0), ("blocks_1/att", 0)],
)
def test_subset_picks_what_is_at_a_path_or_below_it(path, number):
  params = {
    name: np.zeros(1) for name in ("blocks_1/attn/key/kernel", "blocks_11/attn/key/kernel", "blocks_0/mlp/bias")
  }
  found = flat(mask_of(nested(params), path))
  assert [name for name, trains in found.items() if trains] == ["blocks_1/attn/key/kernel"] * number


@pytest.mark.parametrize("trained", [*KINDS, "blocks_0", "blocks_0/attn/value/kernel"])
def test_what_is_split_is_joined_again(trained):
  method = Subset(trained=trained)
  parts = method.split(PARAMS, None)
  jax.tree.map(np.testing.assert_array_equal, method.join(*parts), PARAMS)
  assert sum(len(jax.tree.leaves(part)) for part in parts) == len(jax.tree.leaves(PARAMS))


def test_a_path_that_names_nothing_is_refused():
  with pytest.raises(
    InputError, match=r"\Atrained: 'blocks_7' names no parameter; use all, [^\n]*a path as blocks_1\Z"
  ):
    Subset(trained="blocks_7").split(PARAMS, None)


@pytest.mark.parametrize("trained", ["matrices", "no_embeddings"])
@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_a_subset_trains_as_with_the_other_gradients_at_zero(trained, clip):
  """As the first release did: the gradient of everything, zeros where nothing trains, clipped as a whole."""
  recipe = recipe_with(SAME_BATCH, trained=trained, clip_norm=clip, steps=8, warmup_steps=2)
  state = trained_by_step(MODEL, recipe, PARAMS, lane_of(0.3, target="ft"), 6)
  rule, schedule, mask = recipe.optimizer.direction(), recipe.optimizer.schedule(), mask_of(PARAMS, trained)
  objective = Answers(c_tr=0.0)

  @jax.jit
  def update(params, carried, i):
    data = (BATCH.tokens, BATCH.labels_ft)
    gradient = jax.grad(lambda p: objective.loss(MODEL, p, TASK, data, None)[0])(params)
    norm = optax.tree.norm(gradient)
    gradient = jax.tree.map(lambda leaf, trains: leaf if trains else jnp.zeros_like(leaf), gradient, mask)
    direction, carried = rule.update(gradient, carried, params)
    rate = np.float32(0.3) * schedule(i)
    moved = jax.tree.map(lambda p, d: p - rate * d, params, direction)
    return moved, carried, (norm, optax.tree.norm(gradient))

  params, carried, norms = PARAMS, rule.init(PARAMS), []
  for i in range(6):
    params, carried, both = update(params, carried, i)
    norms.append(both)
  assert all(whole > own > 0.2 for whole, own in norms), "clipping acts, and on another norm than everything's"
  after = flat(recipe.method.join(state.trained, state.frozen))
  assert_close(after, flat(params), rtol=1e-6)
  for name, trains in flat(mask).items():
    assert trains or after[name].tobytes() == flat(PARAMS)[name].tobytes(), name


def test_only_the_last_block_trains():
  model = model_of(num_layers=2)
  params, recipe = params_of(model), recipe_with(SAME_BATCH, trained="blocks_1")
  state = trained_by_step(model, recipe, params, lane_of(), 5)
  before, after = flat(params), flat(recipe.method.join(state.trained, state.frozen))
  changed = {name for name, leaf in before.items() if leaf.tobytes() != after[name].tobytes()}
  assert changed and all(name.startswith("blocks_1/") for name in changed)
  kernels = {name for name in before if name.startswith("blocks_1/") and name.endswith("kernel")}
  assert kernels <= changed


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA(Method):
  """W + scale * A B of one linear layer, W [inputs, outputs] frozen, A [inputs, rank] and B [rank, outputs] trained."""

  lora_rank: int = swept(whole(1), 1, traced=False)
  lora_scale: float = swept(ABOVE_0, 1.0)
  layer = "in"

  def split(self, params, key):
    inputs, outputs = params[self.layer]["kernel"].shape
    return {"a": jax.random.normal(key, (inputs, self.lora_rank)), "b": jnp.zeros((self.lora_rank, outputs))}, params

  def join(self, trained, frozen):
    added = self.lora_scale * trained["a"] @ trained["b"]
    own = frozen[self.layer]
    return {**frozen, self.layer: {**own, "kernel": own["kernel"] + added}}


def lora_by_hand(params, a, scale, loss_of, optimizer, rate, steps):
  """(A and B after so many steps, training losses), the product added to LIGHT's first layer."""

  def loss(leaves, i):
    kernel = params["in/kernel"] + scale * jnp.einsum("ir,ro->io", leaves["a"], leaves["b"])
    return loss_of({**params, "in/kernel": kernel}, i)

  with jax.default_matmul_precision("highest"):
    return trained_by_sgd(loss, {"a": a, "b": np.zeros((a.shape[1], 8), np.float32)}, optimizer, rate, steps)


@pytest.mark.parametrize("rank", [1, 2])
def test_lora_trains_its_product_only(rank):
  params = params_of(LIGHT)
  recipe = recipe_with(SAME_BATCH, clip_norm=0.5, steps=8, warmup_steps=2)._replace(method=shared(LoRA(lora_rank=rank)))
  lane = lane_of(0.2, target="ft") | {"lora_scale": np.float32(0.5)}
  state = step.init_state(recipe, params, lane)
  start = flat(jax.device_get(state.trained))
  assert start["a"].shape == (35, rank) and start["a"].std() > 0.5 and not start["b"].any()
  state = jax.jit(lambda state: step.train(LIGHT, recipe, lane, state, start=0, stop=6))(state)

  def loss_of(leaves, i):
    return losses_written_out(leaves, BATCH)[1]

  expected, losses = lora_by_hand(flat(params), start["a"], 0.5, loss_of, recipe.optimizer, 0.2, 6)
  assert_close(flat(state.trained), expected)
  assert float(state.loss) == pytest.approx(np.sum(losses), rel=1e-5)
  assert np.linalg.norm(flat(state.trained)["b"]) > 0.01
  for name, leaf in flat(params).items():
    assert flat(state.frozen)[name].tobytes() == leaf.tobytes(), name


def test_a_trainer_keeps_the_joined_weights_of_lora(tmp_path):
  """Two scales as lanes of one program; another rank is another program. All reach rows by name."""
  stages = [
    stage_with(Answers(c_tr=0.5, target="ft"), method=LoRA(lora_rank=rank, lora_scale=scale))
    for rank, scale in ((1, 1.0), (1, 0.25), (2, 1.0))
  ]
  swept_values = [{name: stage.swept()[name] for name in ("lora_rank", "lora_scale")} for stage in stages]
  assert swept_values == [{"lora_rank": rank, "lora_scale": scale} for rank, scale in ((1, 1.0), (1, 0.25), (2, 1.0))]
  kept, lanes = trained_by_trainer(tmp_path, *stages)
  assert lanes == [2, 2, 1]
  before = flat(params_of(LIGHT))
  for stage, found, scale in zip(stages, kept, (1.0, 0.25, 1.0), strict=True):
    batches = drawn_by(stage, 8)

    def loss_of(leaves, i, batches=batches):
      return losses_written_out(leaves, at(batches, i))[1]

    after, rank = flat(found["params"]), stage.method.lora_rank
    assert after.keys() == before.keys()
    assert all(after[name].tobytes() == before[name].tobytes() for name in before if name != "in/kernel")
    added = after["in/kernel"] - before["in/kernel"]
    assert np.linalg.matrix_rank(added, tol=1e-5) == rank
    a = np.asarray(step.init_state(stage.recipe, params_of(LIGHT), stage.lane).trained["a"])
    expected, losses = lora_by_hand(before, a, scale, loss_of, stage.optimizer, 0.05, 8)
    np.testing.assert_allclose(added, scale * expected["a"] @ expected["b"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["losses"], [0.0, np.mean(losses[:3]), np.mean(losses[3:])], rtol=1e-5)
