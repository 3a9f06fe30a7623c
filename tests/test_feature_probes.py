"""Probes of features against SciPy's optimum on means of one story at a time; control label; what cannot be probed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hostile import changed, config_of

from experiments.measures import feature_probes as measure
from experiments.plan import plans
from finetune_wrappers.analysis.feature_probes import READS, FeatureProber, FeatureProbeSettings
from finetune_wrappers.models.model import FunctionModel
from finetune_wrappers.tasks.stories.records import FEATURES
from finetune_wrappers.types import InputError, ModelOutput

VOCAB, LONGEST, LAST, TELLS = 12, 14, 4, 3
SETTINGS = FeatureProbeSettings(
  stories=256,
  eval_size=256,
  last=LAST,
  steps=200,
  batch_size=256,
  learning_rate=0.3,
  drops=(120,),
  drop_factor=0.05,
  weight_decay=0.0,
)


class Stories:
  """Random tokens; Twist: token 3 among the last four; Conflict: among those before; the padding is token 3."""

  vocab_size = VOCAB

  def __init__(self, number=256, least=6, same=False, strange=()):
    self._number, self._least, self._same, self._strange = number, least, same, strange
    self.asked = []

  def texts_of(self, split, *, size, instructed):
    self.asked.append((split, size, instructed))
    size = min(size, self._number)
    generator = np.random.default_rng(FEATURES.index("Twist") + len(split))
    tokens = generator.integers(VOCAB - 1, size=(size, LONGEST)).astype(np.uint16)
    lengths = generator.integers(self._least, LONGEST + 1, size).astype(np.int32)
    masks = np.zeros(size, np.uint8)
    for i, (row, length) in enumerate(zip(tokens, lengths, strict=True)):
      if self._same:
        row[length - LAST : length] = row[length - LAST]
      row[length:] = TELLS
      told, before = TELLS in row[max(length - LAST, 0) : length], TELLS in row[: max(length - LAST, 0)]
      masks[i] = told << FEATURES.index("Twist") | before << FEATURES.index("Conflict") | (i % 3 == 0)
    if split in self._strange:
      tokens[0, lengths[0] - 1] = VOCAB - 1
    return tokens, lengths, masks


def streams(params, tokens):
  """Two blocks after the embedding: each token's vector, then the sum of all up to here."""
  embedded = params["table"][tokens]
  return ModelOutput(embedded, residuals=(embedded, jnp.cumsum(embedded, axis=1) * 0.3), embedded=embedded * 0)


MODEL = FunctionModel(streams)
ONE_HOT = {"table": jnp.eye(VOCAB)}


def probed(params=ONE_HOT, task=None, model=MODEL, **changed):
  found = FeatureProber(model, task or Stories(), dataclasses.replace(SETTINGS, **changed))(params)
  return found, {(row.get("block"), row["reads"]): row["value"] for row in found.rows()}


def one_at_a_time(params, split):
  """(means [P, N, D], labels [Q, N]) of the blocks 1 and 2, without control."""
  tokens, lengths, masks = Stories().texts_of(split, size=256, instructed=False)
  means = []
  for row, length in zip(tokens, lengths, strict=True):
    vectors = np.array([np.asarray(params["table"], float)[token] for token in row[:length]])
    sums = np.array([0.3 * vectors[: i + 1].sum(axis=0) for i in range(length)])
    means.append([stream[-LAST:].mean(axis=0) for stream in (vectors, sums)])
  labels = [[bool(mask >> i & 1) for mask in masks] for i in range(len(FEATURES))]
  return np.swapaxes(means, 0, 1), np.array(labels)


def logistic(x_NxD, labels_N):
  """Weights and bias that no others beat, with a penalty too small to matter."""

  def loss(theta):
    scores = (x_NxD @ theta[:-1] + theta[-1]) * np.where(labels_N, 1, -1)
    return -scipy.special.log_expit(scores).mean() + 1e-5 * theta @ theta

  found = scipy.optimize.minimize(loss, np.zeros(x_NxD.shape[1] + 1), method="L-BFGS-B")
  return found.x[:-1], found.x[-1]


def test_probes_answer_as_the_best_logistic_regression_on_means_of_one_story_at_a_time():
  params = {"table": jnp.asarray(np.random.default_rng(1).normal(size=(VOCAB, 5)), jnp.float32)}
  found, _ = probed(params)
  means, labels = one_at_a_time(params, "valid")
  tests, expected = one_at_a_time(params, "test")
  assert found.blocks == (0, 1, 2) and found.accuracy.shape == (3, len(READS)) and READS[:-1] == FEATURES
  for kind in (FEATURES.index(name) for name in ("Dialogue", "Twist", "Conflict")):
    for place in (0, 1):
      weights, bias = logistic(means[place], labels[kind])
      right = ((tests[place] @ weights + bias > 0) == expected[kind]).mean()
      assert found.accuracy[place + 1, kind] == pytest.approx(right, abs=0.015), (place, FEATURES[kind])
  share = expected.mean(axis=1)
  np.testing.assert_allclose(found.guess[:-1], np.maximum(share, 1 - share), atol=1e-6)


def test_only_the_last_tokens_are_read_and_no_padding():
  _, value = probed()
  assert value[1, "Twist"] > 0.99
  assert abs(value[1, "Conflict"] - value[None, "Conflict"]) < 0.1  # stands before what is read
  assert value[2, "Conflict"] > value[1, "Conflict"] + 0.1  # but is in the sums
  assert value[0, "Twist"] == value[None, "Twist"]  # nothing to read: the commoner label
  assert value[1, "MoralValue"] == value[None, "MoralValue"] == 1.0  # no story has it


def test_of_a_shorter_story_all_tokens_are_read():
  _, value = probed(task=Stories(least=1))
  assert value[1, "Twist"] > 0.99


def test_the_control_label_hangs_on_the_first_of_the_last_tokens_and_on_nothing_else():
  found, value = probed(task=Stories(same=True))  # there the mean is that token
  assert value[1, "control"] > 0.99 and 0.5 <= value[None, "control"] < 0.8
  assert value[0, "control"] < 0.8
  again, _ = probed(task=Stories(same=True))
  np.testing.assert_array_equal(found.accuracy, again.accuracy)


@pytest.mark.parametrize("standardise", [False, True])
def test_standardised_probes_are_tested_on_standardised_channels(standardise):
  table = {"table": 1e-3 * jnp.eye(VOCAB) + 5.0}
  _, value = probed(table, standardise=standardise)
  assert (value[1, "Twist"] > 0.99) == standardise


def test_sizes_are_rounded_up_and_instructions_are_asked_for():
  task = Stories()
  probed(task=task, stories=33, eval_size=64, batch_size=32, instructed=True)
  assert task.asked == [("valid", 64, True), ("test", 64, True)]


def test_what_is_not_finite_has_no_value_and_the_rest_has():
  found, value = probed({"table": jnp.eye(VOCAB).at[0, 0].set(jnp.nan)})
  assert np.isnan(found.accuracy[1]).all() and not np.isnan(found.guess).any()
  assert value[1, "Twist"] is None and value[None, "Twist"] is not None
  # A token that only a story to test on has.
  _, value = probed({"table": jnp.eye(VOCAB).at[VOCAB - 1, 0].set(jnp.inf)}, Stories(strange=("test",)))
  assert value[1, "Twist"] is None and value[2, "Twist"] is None


@pytest.mark.parametrize(
  ("task", "changed", "message"),
  [
    (Stories(100), {}, "stories: 256 is not allowed; use 96 or less, as the split valid has 100 stories"),
    (Stories(100), {"stories": 90}, "eval_size: 256 is not allowed; use 96 or less, as the split test has 100 stories"),
  ],
)
def test_too_few_stories_are_named(task, changed, message):
  with pytest.raises(InputError) as caught:
    FeatureProber(MODEL, task, dataclasses.replace(SETTINGS, **changed))
  assert str(caught.value) == message


def test_a_model_without_its_stream_is_refused():
  bare = FunctionModel(lambda params, tokens: jax.nn.one_hot(tokens, VOCAB) * params["table"][0, 0])
  with pytest.raises(InputError, match=r"\Amodel: gives no residuals; [^\n]*\Z"):
    probed(model=bare)


@pytest.mark.parametrize("changed", [{"last": 0}, {"stories": 0}, {"instructed": 1}, {"eval_size": 100}])
def test_settings_that_cannot_be_are_refused(changed):
  with pytest.raises(InputError, match=rf"\A{next(iter(changed))}: [^\n]*\Z"):
    dataclasses.replace(SETTINGS, **changed)


@pytest.mark.parametrize("field", ["stories", "eval_size"])
def test_more_stories_than_are_held_out_are_refused_before_training(field):
  config = changed(config_of("fig35_38_probes"), **{f"probes.{field}": 136})
  with pytest.raises(
    InputError, match=rf"\Aprobes.{field}: 136 is not allowed; use stories.held_out \(128\) or less\Z"
  ):
    measure.MEASURE.stages(plans(config)[0])
  assert measure.MEASURE.stages(plans(config_of("fig35_38_probes"))[0])
