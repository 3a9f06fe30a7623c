"""One lane's training: loss, update, evaluation. Pure functions of arrays, whatever runs beside them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from finetune_wrappers.tasks.task import Task
from finetune_wrappers.training import optim
from finetune_wrappers.types import Batch, Params

# Test sets are the same for every lane, stage and figure.
TEST_SEED = 20231121

TARGETS = ("pt", "ft", "random")

METRICS = tuple((metric, c_te) for c_te in (0, 1) for metric in ("acc_pt", "acc_ft"))


class Lane(NamedTuple):
  """What differs between the lanes of a program, each [R].

  Attributes:
    learning_rate: maximum of the schedule.
    c_tr: C_Tr.
    stream: 32-bit number that seeds noise and data.
    target: which answer trains, a place in TARGETS.
    noise_std: standard deviation of the Gaussian noise on the initial weights.
  """

  learning_rate: Any
  c_tr: Any
  stream: Any
  target: Any
  noise_std: Any


class LaneState(NamedTuple):
  """What training carries from step to step.

  Attributes:
    params: float32 pytree.
    optimizer: of `optim.direction`.
    loss: mean training loss since the last evaluation.
    diverged_step: the first step whose loss, or else the step after which a weight, was not finite; or -1.
  """

  params: Params
  optimizer: Any
  loss: Any
  diverged_step: Any


def answer_logits(model, params: Params, tokens, position: int):
  """The model's answer, [B, V]."""
  return model.apply({"params": params}, tokens, position, method=model.answer_logits)


def init_state(settings: optim.TrainSettings, params: Params, lane: Lane) -> LaneState:
  """A lane before its first step: the parent's weights with noise."""
  params = optim.add_noise(jax.random.fold_in(jax.random.key(lane.stream), 0), params, lane.noise_std)
  zero, never = jnp.zeros((), jnp.float32), jnp.full((), -1, jnp.int32)
  return LaneState(params, optim.direction(settings).init(params), zero, never)


def target_of(batch: Batch, target: Any):
  """Class [B] that a lane trains; target is a place in TARGETS and may be traced.

  `random` is randFT (App. E.4) where a model has no operand in its prompt: the O_PT answer of the
  neighbouring string, so labels keep their distribution and say nothing about the string.
  """
  return jnp.stack([batch.target_pt, batch.target_ft, jnp.roll(batch.target_pt, 1)])[target]


def loss_fn(model, task: Task, settings: optim.TrainSettings, params: Params, tokens, target):
  """Mean cross-entropy on the answer; scalar."""
  if settings.loss_positions == "answer":
    logits = answer_logits(model, params, tokens, task.answer_position)
  else:
    output = model.apply({"params": params}, tokens)
    logits = output.logits[:, 1 : 1 + task.num_letters]
    target = jnp.broadcast_to(target[:, None], logits.shape[:2])
  return optax.softmax_cross_entropy_with_integer_labels(settings.logit_scale * logits, target).mean()


def _loss_and_grads(model, task, settings, params, tokens, target):
  value_and_grad = jax.value_and_grad(lambda p, *data: loss_fn(model, task, settings, p, *data))
  parts = settings.microbatches
  if parts == 1:
    return value_and_grad(params, tokens, target)

  def add(total, data):
    return jax.tree.map(jnp.add, total, value_and_grad(params, *data)), None

  split = [x.reshape(parts, -1, *x.shape[1:]) for x in (tokens, target)]
  zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
  total, _ = jax.lax.scan(add, zero, tuple(split))
  return jax.tree.map(lambda x: x / parts, total)


def train(model, task: Task, settings: optim.TrainSettings, lane: Lane, state, start, stop):
  """Steps start..stop-1 of one lane.

  A loop with traced bounds rather than a scan of fixed length, so that one compiled program serves every
  distance between evaluations.
  """
  shape, optimizer = optim.schedule(settings), optim.direction(settings)
  key = jax.random.key(lane.stream)

  def step(i, state: LaneState) -> LaneState:
    batch = task.sample(jax.random.fold_in(key, i + 1), settings.batch_size, lane.c_tr)
    labels = target_of(batch, lane.target)
    loss, grads = _loss_and_grads(model, task, settings, state.params, batch.tokens, labels)
    mask = optim.trained_mask(state.params, settings.trained)
    grads = jax.tree.map(lambda grad, trains: grad if trains else jnp.zeros_like(grad), grads, mask)
    direction, carried = optimizer.update(grads, state.optimizer)
    rate = lane.learning_rate * shape(i)
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
    first_bad = jnp.where(jnp.isfinite(loss), -1, i)
    diverged_step = jnp.where(state.diverged_step < 0, first_bad, state.diverged_step)
    return LaneState(params, carried, state.loss + loss, diverged_step.astype(jnp.int32))

  state = jax.lax.fori_loop(start, stop, step, state._replace(loss=jnp.zeros(())))
  whole = jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]))
  diverged_step = jnp.where((state.diverged_step < 0) & ~whole, stop, state.diverged_step)
  return state._replace(loss=state.loss / jnp.maximum(stop - start, 1), diverged_step=diverged_step)


@functools.partial(jax.jit, static_argnames=("task", "size"))
def test_sets(task: Task, size: int) -> dict[int, Batch]:
  """The fixed test sets at C_Te = 0 and 1, each `size` strings."""
  key = jax.random.key(TEST_SEED)
  return {c_te: task.sample_test(jax.random.fold_in(key, c_te), size, c_te) for c_te in (0, 1)}


def evaluate(model, task: Task, tests: dict[int, Batch], params: Params):
  """Accuracies in the order of METRICS, float32 [4]."""
  accuracies = {}
  for c_te, batch in tests.items():
    predicted = answer_logits(model, params, batch.tokens, task.answer_position).argmax(axis=-1)
    accuracies["acc_pt", c_te] = (predicted == batch.target_pt).mean()
    accuracies["acc_ft", c_te] = (predicted == batch.target_ft).mean()
  return jnp.stack([accuracies[metric] for metric in METRICS])
