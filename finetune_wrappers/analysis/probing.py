"""Linear probes (paper App. D): can one linear layer read the old answer off the residual stream?

All places in the model and all kinds of label train at once, on features computed once for each batch; lanes
are added by `jax.vmap` or `jax.lax.map` around `train_probes`. Beside the types' glossary: P places (B0 to B6:
before the first block and after each), Q kinds of label, W positions of a text, A letters.

That a probe reads an answer does not show that the model works it out. Two controls stand beside it: labels that
mean nothing (`control_task`) and a model that never had the capability (another lane; `saturated`).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from finetune_wrappers.statistics import Interval, mean_interval
from finetune_wrappers.types import require, require_not_negative

# (key, batch size B) -> (residual stream at the answer position, [P, B, D]; labels, int [Q, B])
Features = Callable[[Any, int], tuple[Any, Any]]

_WEIGHT_SCALE = 1000  # whole numbers, so that a sum of them is the same in every program


@dataclasses.dataclass(frozen=True)
class ProbeSettings:
  """How probes train. The defaults are the paper's, or a reading where it says nothing (marked so).

  Attributes:
    steps: iterations, each on fresh samples.
    batch_size: strings an iteration (reading: as in the models' training).
    learning_rate: of AdamW, before the first drop.
    drops: iterations, counted from 0, from which the rate is lower; rising, within steps.
    drop_factor: on the rate at each drop.
    weight_decay: on the kernels, not on the biases (reading: AdamW's default in PyTorch).
    eval_size: strings of the test set, a multiple of batch_size (reading).
    standardise: bring each channel of each place to mean 0 and deviation 1, as measured on one batch. The paper does
      not mention it. AdamW moves a weight by about the rate at each step, 2.2 in all, so the size of the residual
      stream bounds how sharp a probe gets; where a result hangs on comparing blocks or models, run both.
  """

  steps: int = 4000
  batch_size: int = 96
  learning_rate: float = 1e-3
  drops: tuple[int, ...] = (2000, 3000, 3500)
  drop_factor: float = 0.1
  weight_decay: float = 0.01
  eval_size: int = 4800
  standardise: bool = False

  def __post_init__(self):
    for field in ("steps", "batch_size", "eval_size", "learning_rate"):
      value = getattr(self, field)
      require(value > 0 and math.isfinite(value), field, value, "above 0")
    require_not_negative(self, "weight_decay")
    require(0 < self.drop_factor <= 1, "drop_factor", self.drop_factor, "above 0, at most 1")
    rising = list(self.drops) == sorted(set(self.drops))
    within = all(0 < drop < self.steps for drop in self.drops)
    require(rising and within, "drops", self.drops, f"rising numbers above 0 and below steps ({self.steps})")
    whole = self.eval_size % self.batch_size == 0
    require(whole, "eval_size", self.eval_size, f"a multiple of batch_size ({self.batch_size})")


class Probes(NamedTuple):
  """One linear layer for each place and kind of label.

  Attributes:
    kernel: float32 [P, Q, D, C].
    bias: float32 [P, Q, C].
  """

  kernel: Any
  bias: Any


class ProbeResult(NamedTuple):
  """What `train_probes` found.

  Attributes:
    accuracy: float32 [P, Q], fraction on fresh strings that all probes share; nan where non_finite.
    loss: float32 [P, Q], cross-entropy in nats, mean over the last tenth of the training steps.
    guess: float32 [Q], accuracy on the same strings of always guessing their most common label.
    non_finite: bool [P, Q], whether a loss, a weight or a test logit was not finite, or a label was C or more.
    probes: as trained; they read standardised channels if the settings say so.
  """

  accuracy: Any
  loss: Any
  guess: Any
  non_finite: Any
  probes: Probes


class ControlTask(NamedTuple):
  """What `control_task` draws.

  Attributes:
    letters: int32 [A], token ids of the alphabet.
    weights: int32 [window, A], the random worth of each letter at each of the last positions.
    edges: float32 [C - 1], scores that part the classes, not falling; infinite beside empty end classes.
  """

  letters: Any
  weights: Any
  edges: Any


def schedule(settings: ProbeSettings) -> optax.Schedule:
  """Learning rate at each step, counted from 0: step `drop` is the first with the lower rate."""
  drops = {drop: settings.drop_factor for drop in settings.drops}
  return optax.piecewise_constant_schedule(settings.learning_rate, drops)


def train_probes(features: Features, settings: ProbeSettings, num_labels: int, key: Any) -> ProbeResult:
  """Trains P x Q probes at once, each as if alone, and tests them on fresh strings (Figs. 8, 90-98).

  Pure, so it goes under jit, vmap and lax.map. A lane is a `features` that closes over the lane's weights; lanes that
  are given the same key see the same strings, in training and in the test. Features are computed outside of
  what is differentiated, so nothing is propagated back into the model. Probes start at zero: the loss is convex.

  Args:
    features: (key, B) -> (x [P, B, D], labels int [Q, B] in 0..C-1); called with B = batch_size only.
    settings: shared by all probes.
    num_labels: C, outputs of a probe (paper: the vocabulary's size).
    key: JAX random key, of all strings.

  Raises:
    InputError: for fewer than 2 classes, or features of other shapes or types.
  """
  require(num_labels >= 2, "num_labels", num_labels, "at least 2")
  places, kinds, width = _sizes(features, settings.batch_size, key)
  training, testing, measuring = jax.random.split(key, 3)
  centre, scale = jnp.zeros(()), jnp.ones(())
  if settings.standardise:
    x_PxBxD = features(measuring, settings.batch_size)[0].astype(jnp.float32)
    centre = x_PxBxD.mean(axis=1, keepdims=True)
    # A channel that never varies (all of B0: the answer request looks the same in every string) stays as it is.
    scale = jnp.maximum(x_PxBxD.std(axis=1, keepdims=True), 1e-6)

  def draw(key):
    x_PxBxD, labels_QxB = features(key, settings.batch_size)
    return (x_PxBxD - centre) / scale, labels_QxB

  optimizer = optax.adamw(schedule(settings), weight_decay=settings.weight_decay, mask=Probes(kernel=True, bias=False))

  def step(carry, i):
    probes, state = carry
    x_PxBxD, labels_QxB = draw(jax.random.fold_in(training, i))
    grads, losses_PxQ = jax.grad(_losses, has_aux=True)(probes, x_PxBxD, labels_QxB)
    updates, state = optimizer.update(grads, state, probes)
    return (jax.tree.map(jnp.add, probes, updates), state), losses_PxQ

  zero = Probes(jnp.zeros((places, kinds, width, num_labels)), jnp.zeros((places, kinds, num_labels)))
  (probes, _), losses_SxPxQ = jax.lax.scan(step, (zero, optimizer.init(zero)), jnp.arange(settings.steps))

  def test(i):
    x_PxBxD, labels_QxB = draw(jax.random.fold_in(testing, i))
    logits_PxQxBxC = _logits(probes, x_PxBxD)
    right_PxQ = (logits_PxQxBxC.argmax(axis=-1) == labels_QxB).sum(axis=-1)
    return right_PxQ, jax.nn.one_hot(labels_QxB, num_labels).sum(axis=1), jnp.isfinite(logits_PxQxBxC).all((2, 3))

  batches = settings.eval_size // settings.batch_size
  right_NxPxQ, labels_NxQxC, finite_NxPxQ = jax.lax.map(test, jnp.arange(batches))  # in a training step's memory
  finite_PxQ = finite_NxPxQ.all(axis=0) & jnp.isfinite(losses_SxPxQ).all(axis=0)
  finite_PxQ &= jnp.isfinite(probes.kernel).all((2, 3)) & jnp.isfinite(probes.bias).all(2)
  return ProbeResult(
    accuracy=jnp.where(finite_PxQ, right_NxPxQ.sum(axis=0) / settings.eval_size, jnp.nan),
    loss=losses_SxPxQ[-max(1, settings.steps // 10) :].mean(axis=0),
    guess=labels_NxQxC.sum(axis=0).max(axis=-1) / settings.eval_size,
    non_finite=~finite_PxQ,
    probes=probes,
  )


def control_task(key, text_NxW, labels_N, *, letters: Sequence[int], window: int, num_labels: int) -> ControlTask:
  """Labels that mean nothing, for the selectivity of Hewitt and Liang (2019): accuracy minus control accuracy.

  Their control task gives each word type a random label. Three such labels would measure nothing here. One for
  each string: strings are nearly all distinct and samples fresh, so accuracy is the guess level from any
  features. A random permutation of r(x, O): the same problem for a linear layer. A hash of the last few tokens:
  common endings make common classes (guess 0.12 instead of 0.05), and unlike a count it is no sum over tokens.

  So the type is a letter at a position, as for a count, and what is random is its worth: the score sums the worths of
  the last `window` positions (a count is that sum with worth 1 for O, else 0) and is cut into classes in such
  shares that the label has the distribution of r(x, O). Worths sum to zero over positions for each letter,
  so the counts do not move the mean score. High control accuracy means that the stream keeps the string.

  It is harder than a count, whose values have gaps: with default settings and counts of 0 to 19 in 40, one-hot letters
  of size 1 (20) gave 0.37 (0.84) for the count and 0.25 (0.55) for the control. So the string alone has
  positive selectivity; its one-hot letters, added as a place, show how much.

  Args:
    key: of the worths; another for each operand, or operands with like labels get the same control.
    text_NxW: int [N, W], texts that end at position W - 1, drawn as the probes' are; some thousands.
    labels_N: int [N], r(x, O) of those texts, in 0..C-1.
    letters: token ids of the alphabet; other tokens are worth nothing.
    window: positions that count, 1 to W, else InputError.
    num_labels: C.
  """
  width, samples = text_NxW.shape[-1], labels_N.shape[0]
  require(1 <= window <= width, "window", window, f"1 to {width}")
  worth = jax.random.normal(key, (window, len(letters)))
  weights = jnp.round(_WEIGHT_SCALE * (worth - worth.mean(axis=0))).astype(jnp.int32)
  task = ControlTask(jnp.asarray(letters, jnp.int32), weights, jnp.zeros(0))
  below = jnp.bincount(labels_N, length=num_labels).cumsum()[:-1]
  edges = jnp.quantile(_scores(task, text_NxW).astype(jnp.float32), below / samples)
  edges = jnp.where(below == 0, -jnp.inf, jnp.where(below == samples, jnp.inf, edges))
  return task._replace(edges=edges)


def control_labels(task: ControlTask, text_BxW: Any) -> Any:
  """The control task's label of each text, int32 [B]; jittable, a function of the text alone.

  Args:
    task: from `control_task`.
    text_BxW: int [B, W], texts that end at position W - 1.
  """
  return jnp.searchsorted(task.edges, _scores(task, text_BxW).astype(jnp.float32), side="right").astype(jnp.int32)


def selectivity(accuracies_R: Any, control_R: Any, level: float = 0.95) -> tuple[float, Interval]:
  """Mean over seeds of accuracy minus control, with Student's t interval of the paired differences.

  The control is the model's own control task, or a model without the capability. One seed has no interval: (nan, nan).

  Args:
    accuracies_R: float [R], fractions, one for each seed.
    control_R: float [R], of the same seeds in the same order.
    level: confidence, in (0, 1), else ValueError.

  Raises:
    InputError: for no seeds, not as many on both sides, or a NaN.
  """
  accuracies_R, control_R = _paired(accuracies_R, control_R)
  differences_R = accuracies_R - control_R
  return float(differences_R.mean()), mean_interval(differences_R, level, bounds=(-1.0, 1.0))


def saturated(accuracies_R: Any, negative_R: Any, guess: float, margin: float = 0.05) -> bool:
  """Whether a probe says nothing about the capability, since it reads the label without it just as well.

  The rule, on means over seeds: the probe of the negative control (a model that never had the capability; same
  strings, same settings) is more than `margin` above the guess, and the model's own not more than `margin` above
  that. A negative control at 1 - margin is always saturated; both at the guess level is a finding, not saturation.

  Args:
    accuracies_R: float [R], fractions, of the model under study.
    negative_R: float [R], of the negative control.
    guess: accuracy of guessing the most common label, `ProbeResult.guess`.
    margin: fraction, 0 or more.

  Raises:
    InputError: for no seeds, not as many on both sides, a NaN, or a margin below 0.
  """
  accuracies_R, negative_R = _paired(accuracies_R, negative_R)
  require(margin >= 0, "margin", margin, "0 or more")
  own, negative = accuracies_R.mean(), negative_R.mean()
  return bool(negative - guess > margin and own - negative <= margin)


def _sizes(features: Features, batch_size: int, key: Any) -> tuple[int, int, int]:
  """(P, Q, D) of what the features give."""
  x, labels = jax.eval_shape(lambda key: features(key, batch_size), key)
  fits = x.ndim == 3 and labels.ndim == 2 and x.shape[1] == labels.shape[1] == batch_size
  fits = fits and jnp.issubdtype(x.dtype, jnp.floating) and jnp.issubdtype(labels.dtype, jnp.integer)
  require(fits, "features", (x, labels), f"floats [P, {batch_size}, D] and integers [Q, {batch_size}]")
  return x.shape[0], labels.shape[0], x.shape[2]


def _logits(probes: Probes, x_PxBxD):
  product = jnp.einsum("pbd,pqdc->pqbc", x_PxBxD, probes.kernel, precision="highest")
  return product + probes.bias[:, :, None]


def _losses(probes: Probes, x_PxBxD, labels_QxB):
  """(sum over probes, so that each has its own gradient; cross-entropy of each, [P, Q])."""
  logits_PxQxBxC = _logits(probes, x_PxBxD)
  labels_PxQxB = jnp.broadcast_to(labels_QxB, logits_PxQxBxC.shape[:-1])
  losses_PxQ = optax.softmax_cross_entropy_with_integer_labels(logits_PxQxBxC, labels_PxQxB).mean(axis=-1)
  return losses_PxQ.sum(), losses_PxQ


def _scores(task: ControlTask, text_BxW):
  """Sum of the letters' worths over the last positions, int32 [B]."""
  is_letter = text_BxW[:, -task.weights.shape[0] :, None] == task.letters
  return jnp.where(is_letter, task.weights, 0).sum(axis=(1, 2))


def _paired(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
  first, second = np.atleast_1d(np.asarray(first, float)), np.atleast_1d(np.asarray(second, float))
  fits = first.ndim == 1 and first.shape == second.shape and first.size > 0
  require(fits, "seeds", (first.shape, second.shape), "as many on both sides, at least one, in one dimension")
  finite = np.isfinite(first).all() and np.isfinite(second).all()
  require(bool(finite), "accuracies", (first, second), "finite numbers; leave out diverged seeds and count them")
  return first, second
