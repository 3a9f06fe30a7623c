"""A task and a model so small that training them compiles in seconds, and lanes of them."""

import collections

import jax
import jax.numpy as jnp
import numpy as np

from finetune_wrappers.models.model import Model
from finetune_wrappers.models.tracr_model import TracrTransformer
from finetune_wrappers.tasks.task import TARGETS, Categorical
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.training import cohort, step
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.methods import Subset
from finetune_wrappers.training.objectives import Answers
from finetune_wrappers.training.optim import SGD
from finetune_wrappers.training.stages import Recipe
from finetune_wrappers.training.swept import shared
from finetune_wrappers.types import Batch

LETTERS, BOS, PAD = 5, 3, 4  # letters of a string, two token ids; a, b and c are 0, 1 and 2
LENGTH = LETTERS + 2


def sample(key, batch_size, c_tr):
  """Strings in which b is common with probability c_tr; the answers are the counts of a and b."""
  draws = jax.random.uniform(key, (batch_size, 1 + LETTERS))
  letters = jnp.where(draws[:, 1:] < jnp.where(draws[:, :1] < c_tr, 0.6, 0.2), 1, jnp.where(draws[:, 1:] < 0.8, 0, 2))
  edges = [jnp.full((batch_size, 1), token) for token in (BOS, PAD)]
  tokens = jnp.concatenate([edges[0], letters, edges[1]], axis=1)
  return Batch(tokens, (letters == 0).sum(axis=1), (letters == 1).sum(axis=1))


# Hashable, as jit needs it.
Task = collections.namedtuple(
  "Task", "sample sample_test question prompted answer_position num_letters num_labels output correlated"
)


def task_with(sampler):
  return Task(
    sample=sampler,
    sample_test=lambda key, size, c_te: sampler(key, size, float(c_te)),
    question=CounterTask().question,
    prompted=False,
    answer_position=2,
    num_letters=LETTERS,
    num_labels=LETTERS + 1,
    output=Categorical(),
    correlated=True,
  )


TASK = task_with(sample)


def model_of(num_layers):
  return TracrTransformer(
    vocab_size=5, max_positions=LENGTH, width=12, num_layers=num_layers, num_heads=2, key_size=3, mlp_hidden_size=8,
    answer_channels=tuple(range(LETTERS + 1)),
  )  # fmt: skip


class Light(Model):
  """Two layers with a model's interface, where only what is around it matters."""

  precision = "highest"

  def init(self, key, tokens):
    params = {"in": {"kernel": np.zeros((5 * LENGTH, 8)), "bias": np.zeros(8)}, "out": {"kernel": np.zeros((8, 7))}}
    return {"params": params}

  def answer(self, params, tokens, position):
    letters = jax.nn.one_hot(tokens, 5).reshape(len(tokens), -1)
    return jax.nn.relu(letters @ params["in"]["kernel"] + params["in"]["bias"]) @ params["out"]["kernel"]


LIGHT = Light()


def params_of(model, seed=0):
  """Every parameter random, biases too."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, LENGTH), int))["params"]
  generator = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: (0.5 * generator.normal(size=leaf.shape)).astype(np.float32), shapes)


def recipe_with(task=TASK, trained="all", eval_size=8, *, noisy=False, positions="answer", logit_scale=1.0, **changed):
  """A recipe of 20 steps of SGD; what is not the objective's or the recipe's changes the optimizer."""
  optimizer = {
    "steps": 20, "batch_size": 6, "warmup_steps": 4, "final_fraction": 0.01, "momentum": 0.9, "clip_norm": 1.0,
    "microbatches": 1,
  }  # fmt: skip
  optimizer |= {"eval_steps": (changed.get("steps", optimizer["steps"]),)}
  objective = shared(Answers(c_tr=0.0, positions=positions, logit_scale=logit_scale))
  traced = ("c_tr", "learning_rate", *(["noise_std"] if noisy else []), "target")
  return Recipe(task, objective, Subset(trained=trained), SGD(**(optimizer | changed)), Accuracies(eval_size), traced)


def lane_of(learning_rate=0.1, c_tr=0.5, stream=0, target="ft", noise_std=0.0):
  """One lane's values, as `TrainStage.lane` gives them."""
  return {
    "learning_rate": np.float32(learning_rate),
    "c_tr": np.float32(c_tr),
    "stream": np.uint32(stream),
    "target": np.int32(TARGETS.index(target)),
    "noise_std": np.float32(noise_std),
  }


def fresh(recipe, params):
  """A lane before its first step, without noise."""
  trained, frozen = recipe.method.split(params, None)
  state = recipe.optimizer.direction().init(trained)
  return step.LaneState(trained, state, np.float32(0), np.int32(-1), frozen, {})


MODEL = model_of(num_layers=1)
RECIPE = recipe_with()


def lanes_of(seed, number, model=MODEL):
  """Lanes that all differ in rate, C_Tr, stream, target and weights."""
  generator = np.random.default_rng(seed)
  lanes = [
    lane_of(10 ** generator.uniform(-3, -1), generator.uniform(), int(generator.integers(2**32)), target)
    for target in generator.choice(TARGETS, number)
  ]
  return lanes, [params_of(model, int(generator.integers(2**32))) for _ in lanes]


def start(program, params):
  states = [fresh(program.recipe, p) for p in params]
  return program.layout.lay_out(jax.tree.map(lambda *leaves: np.stack(leaves), *states))


def run(program, lanes, params, stops=(20,)):
  """(state, metrics) of every lane after the last of the stops, on the host; the state's loss is the mean."""
  lane = program.layout.lay_out(cohort.lane_arrays(lanes))
  state, measured, position = start(program, params), None, 0
  for stop in stops:
    state, measured = program.advance(state, lane, start=position, stop=stop, since=position)
    position = stop
  metrics, loss, _ = program.layout.gather(measured, len(lanes))
  return program.layout.gather(state, len(lanes))._replace(loss=loss), metrics


def alone(lanes, params, model=MODEL):
  """States of the lanes, [R, ...], each trained by itself without a cohort; the loss is the mean."""
  train = jax.jit(lambda state, lane: step.train(model, RECIPE, lane, state, start=0, stop=20))
  arrays = cohort.lane_arrays(lanes)
  with model.numerics():
    states = [train(fresh(RECIPE, p), jax.tree.map(lambda x, i=i: x[i], arrays)) for i, p in enumerate(params)]
  state = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
  return state._replace(loss=state.loss / 20)


def distances(params, others):
  """Of each lane, relative to its length."""
  got, expected = (
    np.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(p)], 1) for p in (params, others)
  )
  return np.linalg.norm(got - expected, axis=1) / np.linalg.norm(expected, axis=1)


def equal_lanes(result, other):
  """Which lanes are bit-equal in everything that came out."""
  pairs = list(zip(jax.tree.leaves(result), jax.tree.leaves(other), strict=True))
  return [all(a[i].tobytes() == b[i].tobytes() for a, b in pairs) for i in range(len(pairs[0][0]))]
