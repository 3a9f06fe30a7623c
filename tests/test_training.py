"""One lane's training against SGD in NumPy and numerical gradients: updates, parts of batches, draws, compilations."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import BATCH, SAME_BATCH, assert_close, flat, nested, trained_by_sgd
from tiny import LETTERS, LIGHT, MODEL, RECIPE, fresh, lane_of, lanes_of, model_of, params_of, recipe_with, task_with

from finetune_wrappers.models.model import Model
from finetune_wrappers.training import cohort, step
from finetune_wrappers.training.lanes import Layout

PARAMS = params_of(MODEL)


def trained_by_step(recipe, lane, params, stop, model=MODEL):
  train = jax.jit(lambda state, stop: step.train(model, recipe, lane, state, start=0, stop=stop))
  return train(fresh(recipe, params), stop)


def joined(recipe, state):
  return flat(recipe.method.join(state.trained, state.frozen))


def loss_written_out(params, labels, positions, scale):
  """Mean cross-entropy of BATCH's strings at those positions, from the model's full output."""
  logits = scale * MODEL.apply({"params": params}, BATCH.tokens).logits[:, positions]
  chosen = jnp.take_along_axis(logits, jnp.asarray(labels)[:, None, None], axis=-1)[..., 0]
  return (jnp.log(jnp.exp(logits).sum(axis=-1)) - chosen).mean()


LABELS = {"pt": BATCH.labels_pt, "ft": BATCH.labels_ft, "random": np.roll(BATCH.labels_pt, 1)}
CASES = [
  ("pt", {"clip_norm": 0.0}),
  ("ft", {"trained": "matrices", "clip_norm": 0.2, "logit_scale": 3.0}),
  (
    "random",
    {"trained": "no_embeddings", "positions": "letters", "microbatches": 3, "clip_norm": 0.0, "momentum": 0.5},
  ),
]
KINDS = {"all": ("kernel", "bias", "embedding"), "matrices": ("kernel",), "no_embeddings": ("kernel", "bias")}


@pytest.mark.parametrize(("target", "changed"), CASES)
def test_updates_are_those_of_sgd_by_hand(target, changed):
  recipe = recipe_with(steps=6, warmup_steps=2, **changed)
  positions = slice(1, 1 + LETTERS) if recipe.objective.positions == "letters" else slice(2, 3)
  before = flat(PARAMS)
  trainable = {name for name in before if name.endswith(KINDS[recipe.method.trained])}

  def loss(leaves, i):
    return loss_written_out(nested(before | leaves), LABELS[target], positions, recipe.objective.logit_scale)

  own = {name: before[name] for name in trainable}
  expected, losses = trained_by_sgd(loss, own, recipe.optimizer, 0.3, 4)
  state = trained_by_step(recipe._replace(task=SAME_BATCH), lane_of(0.3, target=target), PARAMS, 4)
  after = joined(recipe, state)
  assert_close(after, before | expected)
  assert float(state.loss) == pytest.approx(np.sum(losses), rel=1e-5)
  assert state.diverged_step == -1
  changes = {name for name, leaf in before.items() if not np.array_equal(leaf, after[name])}
  no_effect = {"blocks_0/attn/key/bias"}  # a softmax does not see it: its gradient is 0 or rounding
  assert changes - no_effect == trainable - no_effect


@pytest.mark.parametrize("positions", ["answer", "letters"])
def test_gradient_of_the_loss_is_the_numerical_one(positions):
  model, recipe = model_of(num_layers=2), recipe_with(positions=positions, logit_scale=2.0)
  generator = np.random.default_rng(1)
  with jax.enable_x64(True):
    params = flat(jax.tree.map(lambda leaf: leaf.astype(np.float64), params_of(model)))

    def found(leaves):
      data = (BATCH.tokens, BATCH.labels_ft)
      (loss, _), gradient = step.loss_and_grads(
        model, recipe, trained=nested(leaves), frozen={}, batch=data, key=jax.random.key(0)
      )
      return loss, gradient

    both = jax.jit(found)
    gradient = flat(both(params)[1])
    for name, leaf in params.items():
      place, sides = tuple(generator.integers(leaf.shape)), []
      for shift in (1e-5, -1e-5):
        moved = leaf.copy()
        moved[place] += shift
        sides.append(float(both(params | {name: moved})[0]))
      assert float(gradient[name][place]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-8), name


def test_microbatches_give_the_same_loss_and_gradient():
  states = []
  for parts in (1, 3):
    recipe = recipe_with(SAME_BATCH, microbatches=parts, clip_norm=0.0)
    states.append(trained_by_step(recipe, lane_of(), PARAMS, 1))
  gradients = [flat(state.optimizer[1].trace) for state in states]  # a first step's momentum is its gradient
  assert float(states[1].loss) == pytest.approx(float(states[0].loss), rel=1e-6)
  assert_close(gradients[1], gradients[0], rtol=1e-5)


class Constant(Model):
  """The same logits for every string."""

  def answer(self, params, tokens, position):
    return params["kernel"] * jnp.ones((len(tokens), 6))


def python_loop(start, stop, body, state):
  for i in range(start, stop):
    state = body(i, state)
  return state


def data_drawn(stream, c_tr, steps):
  """What a lane asks its task for: (key, size, C_Tr) of each step."""
  asked = []

  def spy(key, batch_size, c_tr):
    asked.append((tuple(jax.random.key_data(key).tolist()), batch_size, float(c_tr)))
    return BATCH

  recipe, params = recipe_with(task_with(spy)), {"kernel": np.ones(6, np.float32)}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax.lax, "fori_loop", python_loop)
    step.train(
      Constant(), recipe, lane_of(c_tr=c_tr, stream=stream), fresh(recipe, params), start=steps[0], stop=steps[1]
    )
  return asked


def test_each_step_of_a_stream_draws_its_own_strings_whatever_the_rate_of_correlation():
  first, swept, other = data_drawn(1, 0.25, (0, 4)), data_drawn(1, 0.75, (0, 4)), data_drawn(2, 0.25, (0, 4))
  assert [call[1:] for call in first] == [(6, 0.25)] * 4
  assert [call[1:] for call in swept] == [(6, 0.75)] * 4
  assert [call[0] for call in first] == [call[0] for call in swept]
  noise = tuple(jax.random.key_data(jax.random.fold_in(jax.random.key(1), 0)).tolist())
  assert len({noise, *(call[0] for call in [*first, *other])}) == 9
  assert data_drawn(1, 0.25, (2, 4)) == first[2:]


@pytest.mark.parametrize("inner", ["map", "vmap"])
def test_however_many_parts_a_run_has_a_step_is_traced_once_for_each_shape(monkeypatch, inner):
  chex.clear_trace_counter()
  monkeypatch.setattr(step, "train", chex.assert_max_traces(step.train, n=1))
  program = cohort.Cohort(LIGHT, RECIPE, Layout(1, inner))

  def run(seed, number, stops):
    lanes, params = lanes_of(seed, number, LIGHT)
    lane = cohort.lane_arrays(lanes)
    state, laid = program.init(params, lane), program.layout.lay_out(lane)
    for start, stop in itertools.pairwise(stops):
      state, _ = program.advance(state, laid, start=start, stop=stop, since=None if stop == 2 else start)

  run(0, 3, (0, 1, 2, 7, 20))
  run(1, 3, (0, 20))
  with pytest.raises(AssertionError, match="traced > 1 times"):
    run(0, 4, (0, 20))
