"""Schedule, optimiser, loss, update and evaluation of one lane against NumPy and a numerical gradient."""

import collections
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from scipy import special, stats
from tiny import LENGTH, LETTERS, MODEL, TASK, fresh, model_of, params_of, sample, settings_with, task_with

from finetune_wrappers.tasks.task import TARGETS
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.training import losses, optim, step
from finetune_wrappers.types import Batch, InputError

PARAMS = params_of(MODEL)
BATCH = jax.tree.map(np.asarray, sample(jax.random.key(7), 6, 0.5))
SAME_BATCH = task_with(lambda key, batch_size, c_tr: BATCH)


def flat(tree):
  return {"/".join(path): np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(tree).items()}


def share_of_the_rate(i, steps, warmup, final):
  if i < warmup:
    return i / warmup
  return final + (1 - final) * (1 + np.cos(np.pi * (i - warmup) / (steps - warmup))) / 2


def norm(leaves):
  return np.sqrt(sum(np.square(leaf).sum() for leaf in leaves.values()))


def directions(gradients, clip, momentum, dampening=0.0):
  """What SGD with momentum steps along after each of the gradients."""
  total = {name: 0.0 for name in gradients[0]}
  for gradient in gradients:
    shrink = min(1.0, clip / norm(gradient)) if clip else 1.0
    total = {name: (1 - dampening) * shrink * leaf + momentum * total[name] for name, leaf in gradient.items()}
    yield total


def assert_close(got, expected, rtol=2e-5):
  assert got.keys() == expected.keys()
  for name, leaf in expected.items():
    np.testing.assert_allclose(got[name], leaf, rtol=rtol, atol=rtol * np.abs(leaf).max() + 1e-9, err_msg=name)


@pytest.mark.parametrize(("warmup", "final"), [(0, 0.01), (7, 0.01), (24, 0.01), (7, 0.0), (7, 1.0)])
def test_schedule_rises_from_zero_and_falls_as_a_cosine(warmup, final):
  schedule = optim.schedule(settings_with(steps=25, warmup_steps=warmup, final_fraction=final))
  expected = [share_of_the_rate(i, 25, warmup, final) for i in range(26)]
  np.testing.assert_allclose([schedule(i) for i in range(26)], expected, atol=1e-6)


@pytest.mark.parametrize(("momentum", "dampening"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.9), (0.5, 0.2)])
@pytest.mark.parametrize("clip", [0.0, 4.0, 1e6])
def test_direction_clips_the_whole_gradient_and_adds_momentum(clip, momentum, dampening):
  generator = np.random.default_rng(0)
  sizes = (0.1, 3.0, 0.5, 20.0)  # of norms around 0.3 to 60, so that some are clipped at 4
  gradients = [{"a": s * generator.normal(size=(2, 3)), "b": s * generator.normal(size=3)} for s in sizes]
  gradients = [{name: leaf.astype(np.float32) for name, leaf in gradient.items()} for gradient in gradients]
  optimizer = optim.direction(settings_with(clip_norm=clip, momentum=momentum, dampening=dampening))
  state = optimizer.init(gradients[0])
  for gradient, expected in zip(gradients, directions(gradients, clip, momentum, dampening), strict=True):
    got, state = optimizer.update(gradient, state)
    assert_close(got, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("trained", "endings"),
  [
    ("all", {"kernel", "bias", "embedding"}),
    ("matrices", {"kernel"}),
    ("no_embeddings", {"kernel", "bias"}),
  ],
)
def test_trained_mask_picks_leaves_by_their_kind(trained, endings):
  assert {name.split("/")[-1] for name in flat(PARAMS)} == {"kernel", "bias", "embedding"}
  for name, trains in flat(optim.trained_mask(PARAMS, trained)).items():
    assert trains == (name.split("/")[-1] in endings), name


def test_noise_is_gaussian_of_that_width_on_every_leaf_and_independent_between_leaves():
  params = {"zeros": np.zeros((60, 70), np.float32), "ones": np.ones((60, 70), np.float32), "one": np.float32([5.0])}
  noisy = optim.add_noise(jax.random.key(0), params, 0.25)
  noise = {name: (np.asarray(noisy[name]) - params[name]).ravel() for name in params}
  for name in ("zeros", "ones"):
    assert stats.kstest(noise[name], stats.norm(scale=0.25).cdf).pvalue > 1e-3
  assert noise["one"] != 0
  assert abs(np.corrcoef(noise["zeros"], noise["ones"])[0, 1]) < 0.06  # four standard errors


def test_noise_is_reproducible_by_key_and_none_where_its_width_is_zero():
  params = {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 2), np.float32)}
  first, again, other = (optim.add_noise(jax.random.key(seed), params, 0.1) for seed in (0, 0, 1))
  silent = optim.add_noise(jax.random.key(0), params, 0.0)
  for name, leaf in params.items():
    np.testing.assert_array_equal(first[name], again[name])
    np.testing.assert_array_equal(silent[name], leaf)
    assert np.all(np.asarray(first[name]) != other[name])


@pytest.mark.parametrize(
  ("field", "bad", "allowed"),
  [
    ("steps", 0, "above 0"),
    ("batch_size", 0, "above 0"),
    ("microbatches", 0, "above 0"),
    ("microbatches", 4, r"a divisor of batch_size \(6\)"),
    ("eval_size", -1, "above 0"),
    ("logit_scale", 0.0, "above 0"),
    ("warmup_steps", -1, "0 or more"),
    ("warmup_steps", 20, r"less than steps \(20\)"),  # would leave the cosine no step
    ("clip_norm", -1.0, "0 or more"),
    ("clip_norm", float("inf"), "0 or more"),
    ("noise_std", float("nan"), "0 or more"),
    ("momentum", 1.0, "0 to below 1"),
    ("momentum", -0.1, "0 to below 1"),
    ("dampening", 1.0, "0 to below 1, and 0 without momentum"),
    ("final_fraction", 1.5, "0 to 1"),
    ("trained", "biases", "all, matrices, no_embeddings"),
    ("loss_positions", "all", "answer, letters"),
    ("eval_steps", (), "the last 20"),
    ("eval_steps", (0, 10), "the last 20"),
    ("eval_steps", (10, 10, 20), "rising"),
    ("eval_steps", (-1, 20), "from 0"),
  ],
)
def test_settings_that_cannot_be_used_are_refused_by_field(field, bad, allowed):
  changed = {"steps": bad, "eval_steps": (20,)} if field == "steps" else {field: bad}
  with pytest.raises(InputError, match=rf"\A{field}: [^\n]+ is not allowed; use [^\n]*{allowed}[^\n]*\Z"):
    settings_with(**changed)


def loss_written_out(params, labels, positions, scale):
  """Mean cross-entropy of BATCH's strings at those positions, from the model's full output."""
  logits = scale * MODEL.apply({"params": params}, BATCH.tokens).logits[:, positions]
  chosen = jnp.take_along_axis(logits, jnp.asarray(labels)[:, None, None], axis=-1)[..., 0]
  return (jnp.log(jnp.exp(logits).sum(axis=-1)) - chosen).mean()


LABELS = (BATCH.labels_pt, BATCH.labels_ft, np.roll(BATCH.labels_pt, 1))
CASES = [  # (place in TARGETS, settings)
  (0, {"clip_norm": 0.0}),
  (1, {"trained": "matrices", "clip_norm": 0.2, "logit_scale": 3.0}),
  (2, {"trained": "no_embeddings", "loss_positions": "letters", "microbatches": 3, "clip_norm": 0.0, "momentum": 0.5}),
]


@pytest.mark.parametrize(("target", "changed"), CASES)
def test_updates_are_those_of_sgd_by_hand(target, changed):
  settings = settings_with(steps=6, warmup_steps=2, **changed)
  positions = slice(1, 1 + LETTERS) if settings.loss_positions == "letters" else slice(2, 3)
  loss_and_gradient = jax.jit(
    jax.value_and_grad(lambda p: loss_written_out(p, LABELS[target], positions, settings.logit_scale))
  )
  kinds = {"all": ("kernel", "bias", "embedding"), "matrices": ("kernel",), "no_embeddings": ("kernel", "bias")}
  params, losses, gradients = flat(PARAMS), [], []
  for i in range(4):
    loss, gradient = loss_and_gradient(traverse_util.unflatten_dict(params, sep="/"))
    losses.append(loss)
    gradients.append({name: g for name, g in flat(gradient).items() if name.endswith(kinds[settings.trained])})
    *_, direction = directions(gradients, settings.clip_norm, settings.momentum)
    rate = 0.3 * share_of_the_rate(i, 6, 2, 0.01)
    params |= {name: params[name] - rate * along for name, along in direction.items()}

  lane = step.Lane(np.float32(0.3), 0.5, 0, target, 0.0)
  state = jax.jit(lambda s, stop: step.train(MODEL, SAME_BATCH, settings, lane, s, 0, stop))(fresh(settings, PARAMS), 4)
  assert_close(flat(state.params), params)
  assert float(state.loss) == pytest.approx(np.sum(losses), rel=1e-5)
  assert state.diverged_step == -1
  changes = {name for name, leaf in flat(PARAMS).items() if not np.array_equal(leaf, flat(state.params)[name])}
  trainable = {name for name in params if name.endswith(kinds[settings.trained])}
  no_effect = {"blocks_0/attn/key/bias"}  # a softmax does not see it: its gradient is 0 or rounding
  assert changes - no_effect == trainable - no_effect


@pytest.mark.parametrize("positions", ["answer", "letters"])
def test_gradient_of_the_loss_is_the_numerical_one(positions):
  model, settings = model_of(num_layers=2), settings_with(loss_positions=positions, logit_scale=2.0)
  generator = np.random.default_rng(1)
  with jax.enable_x64(True):
    params = flat(jax.tree.map(lambda leaf: leaf.astype(np.float64), params_of(model)))

    def loss(leaves):
      tree = traverse_util.unflatten_dict(leaves, sep="/")
      return losses.loss_fn(model, TASK, settings, tree, BATCH.tokens, BATCH.labels_ft)

    both = jax.jit(jax.value_and_grad(loss))
    gradient = both(params)[1]
    for name, leaf in params.items():
      place, sides = tuple(generator.integers(leaf.shape)), []
      for shift in (1e-5, -1e-5):
        moved = leaf.copy()
        moved[place] += shift
        sides.append(float(both(params | {name: moved})[0]))
      assert float(gradient[name][place]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-8), name


def test_microbatches_give_the_same_loss_and_gradient():
  lane = step.Lane(np.float32(0.1), 0.5, 0, 1, 0.0)
  states = []
  for parts in (1, 3):
    settings = settings_with(microbatches=parts, clip_norm=0.0)
    train = jax.jit(lambda s, settings=settings: step.train(MODEL, SAME_BATCH, settings, lane, s, 0, 1))
    states.append(train(fresh(settings, PARAMS)))
  gradients = [flat(state.optimizer[1].trace) for state in states]  # a first step's momentum is its gradient
  assert float(states[1].loss) == pytest.approx(float(states[0].loss), rel=1e-6)
  assert_close(gradients[1], gradients[0], rtol=1e-5)


@jax.jit
def logits_of(tokens):
  return MODEL.apply({"params": PARAMS}, tokens).logits


def test_loss_at_letters_is_the_mean_over_letters_and_leaves_out_start_and_pads():
  settings = settings_with(loss_positions="letters", logit_scale=0.5)
  logits = 0.5 * np.asarray(logits_of(BATCH.tokens), np.float64)
  parts = [
    special.logsumexp(logits[row, place]) - logits[row, place, label]
    for row, label in enumerate(BATCH.labels_ft)
    for place in range(1, LENGTH - 1)
  ]
  loss = jax.jit(lambda batch: losses.loss_fn(MODEL, TASK, settings, PARAMS, batch.tokens, batch.labels_ft))(BATCH)
  assert float(loss) == pytest.approx(np.mean(parts), rel=1e-5)


def test_target_is_the_lanes_and_random_takes_the_labels_from_other_strings():
  batch = Batch(np.zeros((9, 3), int), np.arange(9), np.arange(9) + 20)
  question = jax.jit(CounterTask().question)
  pt, ft, random = (np.asarray(question(batch, TARGETS.index(target))[1]) for target in ("pt", "ft", "random"))
  np.testing.assert_array_equal(pt, batch.labels_pt)
  np.testing.assert_array_equal(ft, batch.labels_ft)
  assert np.all(random != batch.labels_pt)
  repeated = batch._replace(labels_pt=np.array([1, 1, 2, 3, 3, 3, 0, 0, 5]))
  labels = np.asarray(CounterTask().question(repeated, TARGETS.index("random"))[1]).tolist()
  assert collections.Counter(labels) == collections.Counter(repeated.labels_pt.tolist())


def test_evaluate_counts_right_answers():
  tests = {c_te: jax.tree.map(np.asarray, batch) for c_te, batch in step.test_sets(TASK, 40).items()}
  got = jax.jit(lambda params: step.evaluate(MODEL, TASK, tests, params))(PARAMS)
  expected = []
  for metric, c_te in step.METRICS:
    logits = np.asarray(logits_of(tests[c_te].tokens))[:, 2]
    letter = {"acc_pt": 0, "acc_ft": 1}[metric]
    right = [list(row).count(letter) == answer.argmax() for row, answer in zip(tests[c_te].tokens, logits, strict=True)]
    expected.append(sum(right) / 40)
  assert len(set(expected)) == 4, "the four must differ for their order to be seen"
  np.testing.assert_allclose(got, expected, atol=1e-6)
  assert step.METRICS == (("acc_pt", 0), ("acc_ft", 0), ("acc_pt", 1), ("acc_ft", 1))


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

  def apply(variables, tokens, position, method):
    return variables["params"]["kernel"] * jnp.ones((len(tokens), 6))

  model, params = types.SimpleNamespace(apply=apply, answer_logits=None), {"kernel": np.ones(6, np.float32)}
  settings, lane = settings_with(), step.Lane(np.float32(0.1), c_tr, stream, 0, 0.0)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax.lax, "fori_loop", python_loop)
    step.train(model, task_with(spy), settings, lane, fresh(settings, params), *steps)
  return asked


def test_each_step_of_a_stream_draws_its_own_strings_whatever_the_rate_of_correlation():
  first, swept, other = data_drawn(1, 0.25, (0, 4)), data_drawn(1, 0.75, (0, 4)), data_drawn(2, 0.25, (0, 4))
  assert [call[1:] for call in first] == [(6, 0.25)] * 4
  assert [call[1:] for call in swept] == [(6, 0.75)] * 4
  assert [call[0] for call in first] == [call[0] for call in swept]
  noise = tuple(jax.random.key_data(jax.random.fold_in(jax.random.key(1), 0)).tolist())
  assert len({noise, *(call[0] for call in [*first, *other])}) == 9
  assert data_drawn(1, 0.25, (2, 4)) == first[2:]
