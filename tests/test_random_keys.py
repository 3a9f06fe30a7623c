"""Random keys: every draw of a run has a key of its own, whatever splits the keys it is given."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BOS, LETTERS, LIGHT, PAD, lane_of, params_of, recipe_with, task_with

from finetune_wrappers.analysis import ProbeSettings, PruneSettings, probe, prune
from finetune_wrappers.models.model import FunctionModel
from finetune_wrappers.tasks.pcfg_tasks import PCFGTask
from finetune_wrappers.tasks.pcfg_text import PCFGText
from finetune_wrappers.tasks.tracr_tasks import CounterTask, MaxIdentifierTask
from finetune_wrappers.training import step
from finetune_wrappers.training.keys import key_for
from finetune_wrappers.training.methods import Subset
from finetune_wrappers.training.objectives import Answers, MixedAnswers
from finetune_wrappers.training.swept import with_values
from finetune_wrappers.types import Batch, ModelOutput

SAMPLERS = ("bernoulli", "bits", "categorical", "choice", "gumbel", "normal", "permutation", "randint", "uniform")


@pytest.fixture
def drawn(monkeypatch):
  """The key of every draw."""
  found = []

  def recorded(sampler):
    def draw(key, *args, **more):
      if not isinstance(key, jax.core.Tracer):  # else only shapes are asked for
        found.append(tuple(np.ravel(jax.random.key_data(key)).tolist()))
      return sampler(key, *args, **more)

    return draw

  for name in SAMPLERS:
    monkeypatch.setattr(jax.random, name, recorded(getattr(jax.random, name)))
  with jax.disable_jit():
    yield found


def repeated(keys):
  return {key: times for key, times in collections.Counter(keys).items() if times > 1}


def split_sample(key, batch_size, c_tr):
  """Strings whose parts each have a key of their own, three levels deep."""
  keys = [key, *jax.random.split(key, 4)]
  keys += [below for own in keys[1:] for below in jax.random.split(own, 3)]
  letters = sum(jax.random.randint(own, (batch_size, LETTERS), 0, 3) for own in keys) % 3
  edges = [jnp.full((batch_size, 1), token) for token in (BOS, PAD)]
  count = (letters == 0).sum(axis=1)
  return Batch(jnp.concatenate([edges[0], letters, edges[1]], axis=1), count, count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropping(Answers):
  """A loss that draws, and splits its key as well."""

  def loss(self, model, params, task, batch, key):
    for own in (key, *jax.random.split(key, 4)):
      jax.random.bernoulli(own, 0.5, (2,))
    return super().loss(model, params, task, batch, key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing(Subset):
  """A method that draws weights of its own."""

  def split(self, params, key):
    for own in (key, *jax.random.split(key, 4)):
      jax.random.normal(own, (2,))
    return super().split(params, key)


class SplitTask(CounterTask):
  """Counting, with the keys that our samplers derive and more."""

  def sample(self, key, batch_size, c_tr):
    return split_sample(key, batch_size, c_tr)

  def sample_test(self, key, batch_size, c_te):
    return split_sample(key, batch_size, float(c_te))


SPLIT = SplitTask(num_letters=LETTERS, vocab_size=3, num_pads=1)
WIDE = 32  # at least as many as either task has tokens and labels


def readout(params, tokens):
  """One linear layer, which is all that analyses need of a model."""
  x_BxTxD = jax.nn.one_hot(tokens, WIDE)
  return ModelOutput(x_BxTxD @ params["out"]["kernel"], residuals=(x_BxTxD,))


@pytest.mark.parametrize("parts", [1, 2])
def test_no_two_draws_of_a_run_have_one_key(drawn, parts):
  recipe = recipe_with(task_with(split_sample), microbatches=parts, noisy=True)
  recipe = recipe._replace(objective=Dropping(c_tr=0.0), method=Drawing())
  lane = lane_of(stream=3, noise_std=0.1)
  state = step.init_state(recipe, params_of(LIGHT), lane)
  step.train(LIGHT, recipe, lane, state, start=0, stop=2)
  weights = len(jax.tree.leaves(params_of(LIGHT)))
  assert len(drawn) == weights + 5 + 2 * (17 + 5 * parts)
  assert repeated(drawn) == {}


@pytest.mark.parametrize(("task", "draws"), [(SPLIT, 17), (MaxIdentifierTask(), 6)])
def test_no_two_draws_of_analyses_have_one_key(drawn, task, draws):
  model, params = FunctionModel(readout), {"out": {"kernel": jnp.eye(WIDE)}}
  prune(model, params, task, PruneSettings(ks=(0, 1), batch_size=3, eval_size=3, random_draws=10))
  batches = 1 + 2  # for the gradient, at C_Te = 0 and 1
  assert len(drawn) == batches * draws + 10
  probe(model, params, task, ProbeSettings(steps=2, drops=(), batch_size=3, eval_size=6, standardise=True))
  batches += 1 + 1 + 2 + 2  # for the controls, to standardise, to train, to test
  assert len(drawn) == batches * draws + 10 + 2  # two controls draw their weights
  assert repeated(drawn) == {}


def test_mixing_pretraining_samples_in_draws_each_thing_with_a_key_of_its_own(drawn):
  task = PCFGTask(PCFGText(window=24, counted=12, occurrence=2, token_place=6, farthest=10), "counting")
  mixed = with_values(MixedAnswers(target="ft", c_tr=0.5, prior=(0.5, 0.3, 0.2), mix=0.5, mixed=True), {"target": 1})
  mixed.draw(task, jax.random.key(5), 4)
  assert len(drawn) == 5 and repeated(drawn) == {}


def test_a_named_key_is_none_of_a_split_and_one_for_each_name():
  key = jax.random.key(0)
  parts = jax.random.key_data(jax.random.split(key, 1000)).tolist()
  named = [jax.random.key_data(key_for(key, use)).tolist() for use in ("loss", "method")]
  assert all(own not in parts for own in named) and named[0] != named[1]
  small = jax.random.key_data(jax.random.fold_in(key, 1)).tolist()
  assert small == parts[1], "why uses are named: a small number folded in is one of the parts"
