"""Probes against a NumPy AdamW and against themselves alone; control labels, selectivity and saturation by hand."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from finetune_wrappers.analysis import probing
from finetune_wrappers.analysis.control_task import control_labels, control_task
from finetune_wrappers.analysis.linear_probes import ProbeSettings, schedule, train_probes
from finetune_wrappers.types import InputError

PLACES, KINDS, WIDTH, CLASSES, BATCH = 3, 2, 6, 5, 16
SHORT = ProbeSettings(
  steps=20, batch_size=BATCH, learning_rate=0.03, drops=(4, 9, 15), drop_factor=0.3, weight_decay=0.1, eval_size=48
)
LONG = dataclasses.replace(SHORT, steps=300, drops=(200,), eval_size=960)
KEY = jax.random.key(0)
LETTERS, WINDOW, COUNTS, FIRST, VOCABULARY, TEXTS = (7, 3, 9), 40, 20, 4, 30, 2**13
PAIRS = list(itertools.product(range(PLACES), range(KINDS)))
labels_of = jax.jit(control_labels)


def noisy(key, batch_size, shift=0.0, poison=0.0):
  """Unequal places and kinds of label, all from noise; place 1 may be poisoned."""
  draws = jax.random.uniform(key, (PLACES, batch_size, WIDTH + 1), minval=-1.7, maxval=1.7)
  x, noise = draws[..., :WIDTH] * jnp.array([0.5, 1.0, 3.0])[:, None, None] + shift, draws[:KINDS, :, WIDTH]
  labels = jnp.clip(jnp.stack([x[0, :, 0] * 4, x[1, :, 1] + x[2, :, 2]]) + noise + 2, 0, CLASSES - 1)
  return x.at[1, 0, 0].add(poison), labels.astype(jnp.int32)


def pooled(x_PxNxD, labels_QxN):
  def features(key, batch_size):
    drawn = jax.random.bits(key, (batch_size,), jnp.uint16) % len(labels_QxN[0])
    return jnp.asarray(x_PxNxD, jnp.float32)[:, drawn], jnp.asarray(labels_QxN, jnp.int32)[:, drawn]

  return features


def readable():
  """Places: noise; label 0 and noise; both labels; both, much smaller and shifted; constants. Class 4 is the mode."""
  generator = np.random.default_rng(8)
  labels = np.minimum(generator.integers(0, CLASSES + 2, (KINDS, 2**11)), CLASSES - 1)
  mixing = 5 * np.linalg.qr(generator.normal(size=(2 * CLASSES, 2 * CLASSES)))[0]
  first, second = np.eye(CLASSES)[labels] @ mixing.reshape(2, CLASSES, -1)
  noise = generator.normal(size=first.shape)
  both, constants = first + second, np.zeros_like(noise) + np.where(np.arange(2 * CLASSES) % 2, 64.0, 70.3)
  return pooled([noise, first + 0.1 * noise, both, 1e-3 * both + 0.01, constants], labels)


def train(features, settings, classes=CLASSES):
  return jax.device_get(jax.jit(lambda key: train_probes(features, settings, classes, key))(KEY))


def adamw(x_SxBxD, labels_SxB, settings):
  """(kernel, bias, losses): Loshchilov and Hutter's algorithm 2 in float64, kernel decayed, bias not."""
  weights = np.zeros((x_SxBxD.shape[-1] + 1, CLASSES))  # the last row is the bias
  decays = np.append(np.ones(len(weights) - 1), 0.0)[:, None] * settings.weight_decay
  first, second, losses = np.zeros_like(weights), np.zeros_like(weights), []
  for i, (x, labels) in enumerate(zip(x_SxBxD, labels_SxB, strict=True)):
    x = np.append(x.astype(float), np.ones((len(x), 1)), axis=1)
    shares = special.softmax(x @ weights, axis=1)
    losses.append(-np.log(shares[np.arange(len(x)), labels]).mean())
    grad = x.T @ (shares - np.eye(CLASSES)[labels]) / len(x)
    first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad**2
    step = first / (1 - 0.9 ** (i + 1)) / (np.sqrt(second / (1 - 0.999 ** (i + 1))) + 1e-8)
    rate = settings.learning_rate * settings.drop_factor ** sum(i >= drop for drop in settings.drops)
    weights = weights - rate * (step + decays * weights)
  return weights[:-1], weights[-1], np.array(losses)


@pytest.fixture(scope="module")
def short():
  """(result, every batch in the order that the features gave it)."""
  batches = []

  def recording(key, batch_size):
    found = noisy(key, batch_size)
    jax.debug.callback(lambda *arrays: batches.append([np.array(a) for a in arrays]), *found, ordered=True)
    return found

  found = train(recording, SHORT)
  jax.effects_barrier()
  return found, batches


@pytest.mark.parametrize(("place", "kind"), PAIRS)
def test_twenty_steps_and_the_test_are_numpys(short, place, kind):
  found, batches = short
  assert len(batches) == SHORT.steps + SHORT.eval_size // BATCH and not found.non_finite.any()
  assert len(np.unique([x for x, _ in batches], axis=0)) == len(batches)  # all of them fresh
  x, labels = np.stack([x[place] for x, _ in batches]), np.stack([labels[kind] for _, labels in batches])
  kernel, bias, losses = adamw(x[: SHORT.steps], labels[: SHORT.steps], SHORT)
  np.testing.assert_allclose(found.probes.kernel[place, kind], kernel, atol=1e-5)
  np.testing.assert_allclose(found.probes.bias[place, kind], bias, atol=1e-5)
  np.testing.assert_allclose(found.loss[place, kind], losses[-2:].mean(), rtol=1e-5)
  x, labels = x[SHORT.steps :].reshape(-1, WIDTH), labels[SHORT.steps :].ravel()
  assert found.accuracy[place, kind] == pytest.approx(((x @ kernel + bias).argmax(axis=1) == labels).mean())
  assert found.guess[kind] == pytest.approx(np.bincount(labels).max() / len(labels))


def test_each_probe_of_each_lane_is_as_trained_alone_and_a_broken_one_is_flagged():
  def lane(shift, poison):
    found = train_probes(functools.partial(noisy, shift=shift, poison=poison), SHORT, CLASSES, KEY)
    return found.non_finite, (found.accuracy, found.loss, *found.probes)

  @jax.jit
  def alone(shift, place, kind):
    def one(key, batch_size):
      x, labels = noisy(key, batch_size, shift)
      return x[place][None], labels[kind][None]

    found = train_probes(one, SHORT, CLASSES, KEY)
    return [leaf[0, 0] for leaf in (found.accuracy, found.loss, *found.probes)]

  args = jnp.array([0.0, 0.7, 0.7]), jnp.array([0.0, 0.0, jnp.nan])
  non_finite, lanes = jax.device_get(jax.jit(jax.vmap(lane))(*args))
  jax.eval_shape(lambda *args: jax.lax.map(lambda arg: lane(*arg), args), *args)
  for i, (place, kind) in itertools.product(range(3), PAIRS):
    broken = i == 2 and place == 1
    assert non_finite[i, place, kind] == broken == np.isnan(lanes[0][i, place, kind])
    if not broken:
      for together, by_itself in zip(lanes, alone(args[0][i], place, kind), strict=True):
        np.testing.assert_allclose(together[i, place, kind], by_itself, rtol=1e-6, atol=1e-6)


def test_what_breaks_in_the_test_set_only_and_a_label_that_is_no_class_are_flagged():
  calls = itertools.count()

  def late(key, batch_size):  # traced for shapes, then for training, then for the test
    x = jnp.ones((2, batch_size, 3)).at[0].set(jnp.inf if next(calls) == 2 else 1.0)
    return x, jnp.stack([jnp.zeros(batch_size, jnp.int32), jnp.full(batch_size, CLASSES)])

  found = train(late, SHORT)
  assert next(calls) == 3 and np.isfinite(found.loss[:, 0]).all()
  assert found.non_finite.tolist() == [[True, True], [False, True]] and np.isfinite(found.probes.kernel).all()


@pytest.mark.parametrize("standardise", [False, True])
def test_what_is_linear_is_read_and_noise_is_guessed(standardise):
  found = train(readable(), dataclasses.replace(LONG, standardise=standardise))
  assert not found.non_finite.any()
  np.testing.assert_allclose(found.guess, 3 / 7, atol=4 * math.sqrt(12 / 49 / LONG.eval_size))
  assert found.accuracy[1, 0] == found.accuracy[2, 0] == found.accuracy[2, 1] == 1.0
  unread = found.accuracy[[0, 0, 1, 4, 4], [0, 1, 1, 0, 1]]
  assert (unread < found.guess.max() + 0.03).all() and (unread[:3] > 0.25).all()
  assert (found.loss[[1, 2, 2], [0, 0, 1]] < 0.1).all() and (found.loss[[0, 4]] > 1).all()
  assert ((found.loss[3] < 0.1) if standardise else (found.loss[3] > 1)).all()
  if standardise:
    np.testing.assert_allclose(found.probes.kernel[2], found.probes.kernel[3], atol=1e-4)


def test_the_model_is_never_differentiated():
  model = jax.custom_vjp(jnp.tanh)
  model.defvjp(lambda x: pytest.fail("differentiated"), lambda *_: (None,))

  def features(key, batch_size):
    return model(noisy(key, batch_size)[0]), noisy(key, batch_size)[1]

  with pytest.raises(pytest.fail.Exception, match="differentiated"):
    jax.grad(model)(1.0)
  jax.eval_shape(lambda: train_probes(features, SHORT, CLASSES, KEY))


def test_rates_drop_exactly_at_the_papers_steps():
  rate_at = schedule(ProbeSettings())
  for steps, rate in (((0, 1999), 1e-3), ((2000, 2999), 1e-4), ((3000, 3499), 1e-5), ((3500, 3999), 1e-6)):
    np.testing.assert_allclose([float(rate_at(step)) for step in steps], rate, rtol=1e-5)
  assert float(schedule(dataclasses.replace(SHORT, drops=()))(19)) == pytest.approx(0.03)


@pytest.mark.parametrize(
  ("field", "values", "allowed"),
  [
    ("steps", (0, -1, 1.5, math.nan), "a whole number from 1"),
    ("batch_size", (0, -1), "a whole number from 1"),
    ("eval_size", (0, -1), "a whole number from 1"),
    ("learning_rate", (0, -1, math.nan, math.inf), "a number above 0"),
    ("weight_decay", (-0.1, math.inf), "a number of 0 or more"),
    ("drop_factor", (0.0, 1.5), "a number above 0, at most 1"),
    ("drops", ((9, 3), (9, 4000)), "use rising numbers below steps"),
    ("drops", ((0, 9), (9, 9)), "a whole number from 1|has a value twice"),
    ("eval_size", (100,), "use a multiple of batch_size"),
    ("prompt", ("random", ""), "one of pt, ft"),
  ],
)
def test_bad_settings_are_refused_with_what_is_allowed(field, values, allowed):
  for value in values:
    with pytest.raises(InputError, match=rf"\A{field}: [^\n]*({allowed})") as caught:
      ProbeSettings(**{field: value})
    assert "\n" not in str(caught.value)


def test_too_few_labels_and_bad_features_are_refused():
  with pytest.raises(InputError, match="num_labels: 1 is not allowed; use at least 2"):
    train_probes(noisy, SHORT, 1, KEY)
  x, y = jnp.zeros((2, BATCH, 3)), jnp.zeros((2, BATCH), jnp.int32)
  for bad in ((x[0], y), (x, y[0]), (x[:, 1:], y), (x, y[:, 1:]), (x, x[..., 0]), (x, x), (x.astype(int), y)):
    with pytest.raises(InputError, match=r"\Afeatures: .* use floats \[P, 16, D\] and integers \[Q, 16\]\Z"):
      train_probes(lambda *_, bad=bad: bad, SHORT, CLASSES, KEY)


@functools.cache
def draw_texts(seed, size=TEXTS):
  """(texts [N, W] with 0..19 of each of two letters, label of the first letter's count)."""
  generator = np.random.default_rng(seed)
  counts = generator.integers(0, COUNTS, (size, 2))
  place = generator.permuted(np.broadcast_to(np.arange(WINDOW), (size, WINDOW)), axis=1)
  tail = (place[..., None] >= counts.cumsum(axis=1)[:, None]).sum(axis=-1)
  return np.array(LETTERS, np.int32)[tail], FIRST + counts[:, 0]


def make_control(seed, text, labels, classes=VOCABULARY):
  make = functools.partial(control_task, letters=LETTERS, num_labels=classes)
  return jax.device_get(jax.jit(make)(jax.random.key(seed), text, labels))


@functools.cache
def control(seed):
  return make_control(seed, *draw_texts(0))


def test_control_labels_are_a_fixed_function_of_the_text():
  text, _ = draw_texts(1)
  found = np.array(labels_of(control(0), text))
  np.testing.assert_array_equal(labels_of(control(0), text[::7]), found[::7])
  np.testing.assert_array_equal(labels_of(make_control(0, *draw_texts(0)), text), found)
  assert (labels_of(control(0), np.roll(text, 1, axis=1)) == found).mean() < 0.2
  assert (labels_of(control(1), text) == found).mean() < 0.1


def test_control_labels_sum_what_letters_are_worth_where_they_stand():
  weights, text = control(0).weights, draw_texts(2, 200)[0].copy()
  text[::3, -4] = 1  # no letter
  scores = [sum(weights[i, LETTERS.index(t)] for i, t in enumerate(x) if t != 1) for x in text]
  for edges in (control(0).edges, np.sort(scores)[::7].astype(np.float32)):
    found = labels_of(control(0)._replace(edges=edges), text)
    np.testing.assert_array_equal(found, [(edges <= score).sum() for score in scores])
  assert np.abs(weights.sum(axis=0)).max() <= WINDOW / 2 and weights.std(axis=0).min() > 500


def test_control_labels_have_the_labels_distribution():
  text, labels = draw_texts(3)
  counts = np.bincount(labels, minlength=VOCABULARY)
  for task in (control(0), control(1)):
    found = np.bincount(labels_of(task, text), minlength=VOCABULARY)
    assert np.abs(found - counts).sum() / TEXTS / 2 < 0.05
    np.testing.assert_array_equal(found > 0, counts > 0)
  lopsided = np.random.default_rng(4).choice([1, 2, 6], TEXTS, p=[0.7, 0.1, 0.2])
  found = labels_of(make_control(2, draw_texts(0)[0], lopsided, classes=8), text)
  np.testing.assert_allclose(np.bincount(found, minlength=8) / TEXTS, [0, 0.7, 0.1, 0, 0, 0, 0.2, 0], atol=0.015)
  assert np.unique(found).tolist() == [1, 2, 6]


def test_counts_do_not_foretell_control_labels():
  (text, labels), (new, new_labels) = draw_texts(6), draw_texts(7)
  for task in (control(0), control(1)):
    known, asked = np.array(labels_of(task, text)), np.array(labels_of(task, new))
    best = np.array([np.bincount(known[labels == FIRST + n]).argmax() for n in range(COUNTS)])
    assert (best[new_labels - FIRST] == asked).mean() < 0.07 and abs(np.corrcoef(asked, new_labels)[0, 1]) < 0.03


def test_a_stream_that_counts_yields_the_count_alone_and_one_that_keeps_the_string_yields_both():
  text, labels = draw_texts(8, 2**11)
  string = 20.0 * (text[..., None] == np.array(LETTERS)).reshape(len(text), -1)
  counted = 20.0 * (labels[:, None] == np.arange(string.shape[1]))
  kinds = [labels, labels_of(control(0), text)]
  settings = ProbeSettings(steps=300, drops=(200,), learning_rate=5e-3, batch_size=64, eval_size=1920)
  accuracy = train(pooled([string, counted], kinds), settings, VOCABULARY).accuracy
  assert accuracy[1, 0] == 1.0 and accuracy[1, 1] < 0.13 and accuracy[0, 0] > 0.45 and accuracy[0, 1] > 0.35


def test_selectivity_pairs_seeds():
  own, control = [0.9, 0.6, 0.8, 0.7], [0.5, 0.1, 0.5, 0.3]
  for level in ({}, {"level": 0.5}):
    mean, interval = probing.selectivity(own, control_R=control, **level)
    expected = stats.ttest_rel(own, control).confidence_interval(level.get("level", 0.95))
    assert mean == pytest.approx(0.4) and interval == pytest.approx((expected.low, expected.high), rel=1e-6)
  assert probing.selectivity([1.0, 0.9], control_R=[0.0, 0.8])[1] == (-1, 1)
  assert np.isnan(probing.selectivity([1], control_R=[0])[1]).all()


@pytest.mark.parametrize(
  "rule",
  [
    lambda own, control: probing.selectivity(own, control_R=control),
    lambda own, control: probing.saturated(own, negative_R=control, guess=0.1),
  ],
)
def test_seeds_that_do_not_pair_and_nan_are_refused(rule):
  unpaired = "seeds: .* use as many on both sides"
  bad = [([0.5], [0.5, 0.6], unpaired), ([], [], unpaired), ([[0.5]], [[0.5]], unpaired)]
  for own, control, match in [*bad, ([0.5, math.nan], [0.5, 0.6], "leave out"), ([0.5], [math.nan], "leave out")]:
    with pytest.raises(InputError, match=match):
      rule(own, control)
