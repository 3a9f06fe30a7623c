"""The jitted functions behind the pruning figures; one set for all models of a plan."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from finetune_wrappers.analysis import pruning
from finetune_wrappers.tasks.task import TARGETS
from finetune_wrappers.training import losses, step
from finetune_wrappers.types import Params

# The batch that scores weights is apart from the test sets.
_SEED = step.TEST_SEED + 2


class Pruner:
  """Scores weights on the pretraining task, zeroes the highest, answers the test sets.

  Args:
    plan: of one task; its `config.pruning` says how.
    model: Flax module of every model of the plan.
  """

  def __init__(self, plan, model):
    self._task, self._config, self._model = plan.task, plan.config.pruning, model
    sample = jax.jit(self._task.sample, static_argnums=1)
    batch = sample(jax.random.key(_SEED), self._config.batch_size, 0.0)
    self._asked = self._task.question(batch, TARGETS.index("pt"))
    self._tests = step.test_sets(self._task, self._config.eval_size)
    self._programs: dict[tuple, Any] = {}

  def curves(self, params: Params, compiled: Params, *, unit: str, scope: str):
    """({score: accuracies [K, 4]}, random pruning's accuracies [draws, K, 4]), in the order of step.METRICS."""
    return self._run(self._curves, params, compiled, unit=unit, scope=scope)

  def single_weights(self, params: Params, compiled: Params, *, scope: str):
    """(order of pruning, accuracies [W, 4] with only the first, only the second, ... weight at zero)."""
    return self._run(self._single_weights, params, compiled, scope=scope)

  def predictions(self, params: Params, compiled: Params, *, scope: str):
    """{C_Te: predicted labels [K, B]} for each of `histogram_ks`."""
    return self._run(self._predictions, params, compiled, scope=scope)

  def _run(self, program, params, compiled, **static):
    key = (program.__name__, *static.values())
    if key not in self._programs:
      self._programs[key] = jax.jit(functools.partial(program, **static))
    with jax.default_matmul_precision("highest"):
      return jax.device_get(self._programs[key](params, compiled))

  def _gradient(self, params: Params) -> Params:
    """dL/dw, L the cross-entropy of the O_PT answer."""

    tokens, labels = self._asked

    def loss(p):
      logits = losses.answer_logits(self._model, p, tokens, self._task.answer_position)
      return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return jax.grad(loss)(params)

  def _evaluate(self, params: Params):
    return step.evaluate(self._model, self._task, self._tests, params)

  def _gradient_order(self, params, compiled, scope: str) -> Params:
    scores = pruning.weight_scores("gradient", params, self._gradient(params))
    mask = pruning.scope_mask(scope, params, compiled)
    return pruning.ranks(pruning.unit_scores(scores, mask, "weight"), "weight")

  def _curves(self, params, compiled, *, unit: str, scope: str):
    grads = self._gradient(params)
    mask = pruning.scope_mask(scope, params, compiled)
    most = max(self._config.ks)

    def places_of(score: str, key):
      if score == pruning.ITERATIVE:
        every = self._config.iterative_every
        return pruning.iterative_ranks(params, self._gradient, mask, unit, count=most, every=every)
      if score == pruning.RANDOM:
        return pruning.ranks(pruning.random_scores(key, mask, unit), unit, most)
      scores = pruning.weight_scores(score, params, grads)
      return pruning.ranks(pruning.unit_scores(scores, mask, unit, mean=score == "magnitude"), unit, most)

    def curve(score: str, key=None):
      return pruning.curve(params, places_of(score, key), jnp.asarray(self._config.ks), self._evaluate)

    keys = jax.random.split(jax.random.fold_in(jax.random.key(_SEED), 1), self._config.random_draws)
    return {score: curve(score) for score in self._config.scores}, jax.lax.map(
      lambda key: curve(pruning.RANDOM, key), keys
    )

  def _single_weights(self, params, compiled, *, scope: str):
    places = self._gradient_order(params, compiled, scope)

    def without(rank):
      return self._evaluate(jax.tree.map(lambda w, place: jnp.where(place == rank, 0.0, w), params, places))

    return places, jax.lax.map(without, jnp.arange(self._config.single_weights))

  def _predictions(self, params, compiled, *, scope: str):
    places = self._gradient_order(params, compiled, scope)
    ks = jnp.asarray(self._config.histogram_ks)

    def answers(batch, p):
      return losses.answer_logits(self._model, p, batch.tokens, self._task.answer_position).argmax(axis=-1)

    return {c: pruning.curve(params, places, ks, functools.partial(answers, b)) for c, b in self._tests.items()}
