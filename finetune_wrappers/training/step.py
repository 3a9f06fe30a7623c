"""One lane's training: loss, update, evaluation. Pure functions of arrays, whatever runs beside them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from finetune_wrappers.tasks.task import TARGETS, Task
from finetune_wrappers.training import losses, optim
from finetune_wrappers.types import Batch, Params

# Test sets are the same for every lane, stage and figure.
TEST_SEED = 20231121

METRICS = tuple((metric, c_te) for c_te in (0, 1) for metric in ("acc_pt", "acc_ft"))


class Lane(NamedTuple):
  """What differs between the lanes of a program, each [R].

  Attributes:
    learning_rate: maximum of the schedule.
    c_tr: C_Tr.
    stream: 32-bit number that seeds noise and data.
    target: which answer trains, a place in TARGETS.
    noise_std: standard deviation of the Gaussian noise on compiled weights.
    prior: P_T(O), the sampling prior of the operands in pretraining samples, [R, operands].
    mix: probability that a training string is a pretraining sample (App. E.1).
  """

  learning_rate: Any
  c_tr: Any
  stream: Any
  target: Any
  noise_std: Any
  prior: Any = (0.0, 0.0, 0.0)
  mix: Any = 0.0


class LaneState(NamedTuple):
  """What training carries from step to step.

  Attributes:
    params: float32 pytree.
    optimizer: of `optim.direction`.
    loss: sum of the training losses since the last evaluation.
    diverged_step: the first step whose loss, or else the step after which a weight, was not finite; or -1.
  """

  params: Params
  optimizer: Any
  loss: Any
  diverged_step: Any


def init_state(settings: optim.Recipe, params: Params, lane: Lane) -> LaneState:
  """A lane before its first step: the parent's weights, with noise if they may be compiled ones."""
  if isinstance(settings, optim.TrainSettings):
    params = optim.add_noise(jax.random.fold_in(jax.random.key(lane.stream), 0), params, lane.noise_std)
  zero, never = jnp.zeros((), jnp.float32), jnp.full((), -1, jnp.int32)
  return LaneState(params, optim.direction(settings).init(params), zero, never)


def train(model, task: Task, settings: optim.Recipe, lane: Lane, state, start, stop, shard=None):
  """Steps start..stop-1 of one lane.

  A loop with traced bounds rather than a scan of fixed length, so that one compiled program serves every
  distance between evaluations.

  Args:
    model: Flax module with `answer_logits`.
    task: where strings come from.
    settings: shared by all lanes.
    lane: what is this lane's own.
    state: before step `start`.
    start: first step.
    stop: one past the last.
    shard: None, or (name of a pmap's axis, its size): each of its devices draws the whole batch, which costs little,
      and takes its part of it.
  """
  shape, optimizer = optim.schedule(settings), optim.direction(settings)
  key = jax.random.key(lane.stream)

  def step(i, state: LaneState) -> LaneState:
    tokens, labels = losses.training_data(task, settings, jax.random.fold_in(key, i + 1), lane)
    if shard:
      tokens, labels = _part(tokens, *shard), _part(labels, *shard)
    loss, grads = losses.loss_and_grads(model, task, settings, state.params, tokens, labels)
    if shard:
      loss, grads = jax.lax.pmean((loss, grads), shard[0])
    if isinstance(settings, optim.TrainSettings):
      grads = optim.trained_only(grads, settings.trained)
    direction, carried = optimizer.update(grads, state.optimizer, state.params)
    rate = lane.learning_rate * shape(i)
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
    first_bad = jnp.where(jnp.isfinite(loss), -1, i)
    diverged_step = jnp.where(state.diverged_step < 0, first_bad, state.diverged_step)
    return LaneState(params, carried, state.loss + loss, diverged_step.astype(jnp.int32))

  state = jax.lax.fori_loop(start, stop, step, state)
  whole = jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]))
  diverged_step = jnp.where((state.diverged_step < 0) & ~whole, stop, state.diverged_step)
  return state._replace(diverged_step=diverged_step)


def _part(batch, axis: str, devices: int):
  """This device's rows, [B, ...] to [B / devices, ...]."""
  size = len(batch) // devices
  return jax.lax.dynamic_slice_in_dim(batch, jax.lax.axis_index(axis) * size, size)


@functools.partial(jax.jit, static_argnames=("task", "size"))
def test_sets(task: Task, size: int) -> dict[int, Batch]:
  """The fixed test sets at C_Te = 0 and 1, each `size` strings."""
  key = jax.random.key(TEST_SEED)
  return {c_te: task.sample_test(jax.random.fold_in(key, c_te), size, c_te) for c_te in (0, 1)}


def evaluate(model, task: Task, tests: dict[int, Batch], params: Params):
  """Accuracies in the order of METRICS, float32 [4]; each operand is asked for by its own prompt, if there are any."""

  def predicted(tokens):
    return losses.answer_logits(model, params, tokens, task.answer_position).argmax(axis=-1)

  accuracies = {}
  for c_te, batch in tests.items():
    if task.prompted:
      questions = [task.question(batch, TARGETS.index(operand)) for operand in ("pt", "ft")]
      answers = predicted(jnp.concatenate([tokens for tokens, _ in questions]))
      answers_pt, answers_ft = jnp.split(answers, 2)
    else:
      answers_pt = answers_ft = predicted(batch.tokens)
    accuracies["acc_pt", c_te] = (answers_pt == batch.labels_pt).mean()
    accuracies["acc_ft", c_te] = (answers_ft == batch.labels_ft).mean()
  return jnp.stack([accuracies[metric] for metric in METRICS])
