"""How linear probes train: all places in a model and all kinds of label at once.

Features are computed once for each batch; lanes are added by `jax.vmap` or `jax.lax.map` around `train_probes`. Beside
the types' glossary: P places in the model, Q kinds of label.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from finetune_wrappers.rules import (
  ABOVE_0,
  FLAG,
  INT32,
  NOT_NEGATIVE,
  SHARE_ABOVE_0,
  SIZE,
  STEPS,
  Checked,
  Many,
  one_of,
  ruled,
  whole,
)
from finetune_wrappers.types import require

# (key, batch size B) -> (residual stream where the answer is read, [P, N, D]; labels, int [Q, N]); N is B, or B times
# the answer positions.
Features = Callable[[Any, int], tuple[Any, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeSettings(Checked):
  """How probes train. The defaults are the paper's, or a reading where it says nothing (marked so).

  Attributes:
    steps: iterations, each on a batch of its own.
    batch_size: strings an iteration (reading: as in the models' training).
    learning_rate: of AdamW, before the first drop.
    drops: iterations, counted from 0, from which the rate is lower; rising, within steps.
    drop_factor: on the rate at each drop.
    weight_decay: on the kernels, not on the biases (reading: AdamW's default in PyTorch).
    eval_size: strings of the test set, a multiple of batch_size (reading).
    standardise: bring each channel of each place to mean 0 and deviation 1, as measured on one batch. The paper does
      not mention it. AdamW moves a weight by about the rate at each step, 2.2 in all, so the size of the residual
      stream bounds how sharp a probe gets; where a result hangs on comparing blocks or models, run both.
    prompt: whose prompt the probed model is given, if prompts name the operand: a capability is one that a prompt for
      O_PT calls.
  """

  steps: int = ruled(STEPS, 4000)
  batch_size: int = ruled(SIZE, 96)
  learning_rate: float = ruled(ABOVE_0, 1e-3)
  drops: tuple[int, ...] = ruled(Many(whole(1, INT32), empty=True), (2000, 3000, 3500))
  drop_factor: float = ruled(SHARE_ABOVE_0, 0.1)
  weight_decay: float = ruled(NOT_NEGATIVE, 0.01)
  eval_size: int = ruled(SIZE, 4800)
  standardise: bool = ruled(FLAG, False)
  prompt: str = ruled(one_of("pt", "ft"), "pt")

  def __post_init__(self):
    super().__post_init__()
    rising = list(self.drops) == sorted(self.drops) and all(drop < self.steps for drop in self.drops)
    require(rising, "drops", self.drops, f"rising numbers below steps ({self.steps})")
    whole_batches = self.eval_size % self.batch_size == 0
    require(whole_batches, "eval_size", self.eval_size, f"a multiple of batch_size ({self.batch_size})")


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
    accuracy: float32 [P, Q], fraction on test strings that all probes share; nan where non_finite.
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


def schedule(settings: ProbeSettings) -> optax.Schedule:
  """Learning rate at each step, counted from 0: step `drop` is the first with the lower rate."""
  drops = {drop: settings.drop_factor for drop in settings.drops}
  return optax.piecewise_constant_schedule(settings.learning_rate, drops)


def train_probes(
  features: Features, settings: ProbeSettings, num_labels: int, key: Any, *, test_features: Features | None = None
) -> ProbeResult:
  """Trains P x Q probes at once, each as if alone, and tests them on strings drawn apart (Figs. 8, 90-98).

  Pure, so it goes under jit, vmap and lax.map. A lane is a `features` that closes over the lane's weights; lanes that
  are given the same key see the same strings, in training and in the test. Features are computed outside of
  what is differentiated, so nothing is propagated back into the model. Probes start at zero: the loss is convex.

  Args:
    features: (key, B) -> (x [P, N, D], labels int [Q, N] in 0..C-1); called with B = batch_size only.
    settings: shared by all probes.
    num_labels: C, outputs of a probe (paper: the vocabulary's size).
    key: JAX random key, of all strings.
    test_features: of the strings to test on; by default drawn as those to train on, and maybe the same strings.

  Raises:
    InputError: for fewer than 2 labels, or features of other shapes or types.
  """
  require(num_labels >= 2, "num_labels", num_labels, "at least 2")
  places, kinds, width, rows = _sizes(features, settings.batch_size, key)
  training, testing, measuring = jax.random.split(key, 3)
  centre, scale = jnp.zeros(()), jnp.ones(())
  if settings.standardise:
    x_PxBxD = features(measuring, settings.batch_size)[0].astype(jnp.float32)
    centre = x_PxBxD.mean(axis=1, keepdims=True)
    # A channel that never varies (all of B0: the answer request looks the same in every string) stays as it is.
    scale = jnp.maximum(x_PxBxD.std(axis=1, keepdims=True), 1e-6)

  def draw(key, features=features):
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
    x_PxBxD, labels_QxB = draw(jax.random.fold_in(testing, i), test_features or features)
    logits_PxQxBxC = _logits(probes, x_PxBxD)
    right_PxQ = (logits_PxQxBxC.argmax(axis=-1) == labels_QxB).sum(axis=-1)
    return right_PxQ, jax.nn.one_hot(labels_QxB, num_labels).sum(axis=1), jnp.isfinite(logits_PxQxBxC).all((2, 3))

  batches = settings.eval_size // settings.batch_size
  tested = batches * rows
  right_NxPxQ, labels_NxQxC, finite_NxPxQ = jax.lax.map(test, jnp.arange(batches))  # in a training step's memory
  finite_PxQ = finite_NxPxQ.all(axis=0) & jnp.isfinite(losses_SxPxQ).all(axis=0)
  finite_PxQ &= jnp.isfinite(probes.kernel).all((2, 3)) & jnp.isfinite(probes.bias).all(2)
  return ProbeResult(
    accuracy=jnp.where(finite_PxQ, right_NxPxQ.sum(axis=0) / tested, jnp.nan),
    loss=losses_SxPxQ[-max(1, settings.steps // 10) :].mean(axis=0),
    guess=labels_NxQxC.sum(axis=0).max(axis=-1) / tested,
    non_finite=~finite_PxQ,
    probes=probes,
  )


def _sizes(features: Features, batch_size: int, key: Any) -> tuple[int, int, int, int]:
  """(P, Q, D, N) of what the features give."""
  x, labels = jax.eval_shape(lambda key: features(key, batch_size), key)
  fits = x.ndim == 3 and labels.ndim == 2 and x.shape[1] == labels.shape[1] and x.shape[1] % batch_size == 0
  fits = fits and jnp.issubdtype(x.dtype, jnp.floating) and jnp.issubdtype(labels.dtype, jnp.integer)
  require(fits, "features", (x, labels), f"floats [P, {batch_size}, D] and integers [Q, {batch_size}]")
  return x.shape[0], labels.shape[0], x.shape[2], x.shape[1]


def _logits(probes: Probes, x_PxBxD):
  product = jnp.einsum("pbd,pqdc->pqbc", x_PxBxD, probes.kernel, precision="highest")
  return product + probes.bias[:, :, None]


def _losses(probes: Probes, x_PxBxD, labels_QxB):
  """(sum over probes, so that each has its own gradient; cross-entropy of each, [P, Q])."""
  logits_PxQxBxC = _logits(probes, x_PxBxD)
  labels_PxQxB = jnp.broadcast_to(labels_QxB, logits_PxQxBxC.shape[:-1])
  losses_PxQ = optax.softmax_cross_entropy_with_integer_labels(logits_PxQxBxC, labels_PxQxB).mean(axis=-1)
  return losses_PxQ.sum(), losses_PxQ
