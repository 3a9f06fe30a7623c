"""The paper's two optimizers and their schedule, with the learning rate as a lane's traced value."""

import abc
import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

from finetune_wrappers.types import Params, require, require_not_negative

TRAINED = ("all", "matrices", "no_embeddings")


@dataclasses.dataclass(frozen=True)
class Recipe(abc.ABC):
  """What every lane of a program shares, whatever the optimizer.

  Attributes:
    steps: iterations (paper: 10 000).
    batch_size: strings an iteration (paper: 96).
    warmup_steps: linear warm-up to the maximum learning rate (paper: 2 000).
    final_fraction: the cosine ends at this share of the maximum (paper: 1/100).
    clip_norm: largest global norm of a gradient; 0 means none. The paper mentions none.
    microbatches: parts that a batch's gradient is computed in; the same gradient up to rounding, and on a
      CPU up to 1.4 times faster where a whole batch's activations outgrow the cache.
    eval_steps: iterations at which both test sets are answered, ascending; the last is `steps`.
    eval_size: strings of each test set.
    loss_positions: which tokens are trained on; what it may be is the subclass's.
  """

  steps: int
  batch_size: int
  warmup_steps: int
  final_fraction: float
  clip_norm: float
  microbatches: int
  eval_steps: tuple[int, ...]
  eval_size: int
  loss_positions: str

  def __post_init__(self):
    for field in ("steps", "batch_size", "microbatches", "eval_size"):
      require(getattr(self, field) > 0, field, getattr(self, field), "above 0")
    for field in ("warmup_steps", "clip_norm"):
      require_not_negative(self, field)
    require(self.warmup_steps < self.steps, "warmup_steps", self.warmup_steps, f"less than steps ({self.steps})")
    require(0 <= self.final_fraction <= 1, "final_fraction", self.final_fraction, "0 to 1")
    fits = self.batch_size % self.microbatches == 0
    require(fits, "microbatches", self.microbatches, f"a divisor of batch_size ({self.batch_size})")
    rising = list(self.eval_steps) == sorted(set(self.eval_steps))
    ends = bool(self.eval_steps) and self.eval_steps[-1] == self.steps and self.eval_steps[0] >= 0
    require(rising and ends, "eval_steps", self.eval_steps, f"rising numbers from 0, the last {self.steps}")

  @abc.abstractmethod
  def rule(self) -> optax.GradientTransformation:
    """From clipped gradients to a direction."""

  @abc.abstractmethod
  def shared(self) -> "Recipe":
    """What lanes must have in common to run as one program."""


@dataclasses.dataclass(frozen=True)
class TrainSettings(Recipe):
  """SGD with momentum on a compiled model (paper App. B).

  Without clipping lr 1e-1 diverges (configs/tab03_readings.py tries other readings). Where every gradient is clipped,
  as in most of Max-identifier's cells (results/README.md), a step is at most
  lr * clip_norm * (1 - dampening) / (1 - momentum) long, whatever the loss.

  Attributes:
    momentum: of SGD; the paper says "with momentum", 0.9 is the reading.
    dampening: of SGD, as in PyTorch but from the first step on: a gradient enters the velocity times 1 - dampening.
      0 sums them up, so that steps grow 1 / (1 - momentum) times as long; the momentum's own value averages them.
    noise_std: standard deviation of the Gaussian noise on the initial weights.
    trained: which parameters train: `all`, `matrices` (no biases, no embeddings) or `no_embeddings`.
    loss_positions: `answer`, the position the answer is read from, or `letters`, every letter's position.
    logit_scale: factor on the logits inside the loss.
  """

  momentum: float
  noise_std: float
  trained: str
  logit_scale: float
  dampening: float = dataclasses.field(default=0.0, metadata={"came_later": True})

  def __post_init__(self):
    super().__post_init__()
    require(0 < self.logit_scale < math.inf, "logit_scale", self.logit_scale, "above 0")
    require_not_negative(self, "noise_std")
    require(0 <= self.momentum < 1, "momentum", self.momentum, "0 to below 1")
    fits = 0 <= self.dampening < 1 and (self.momentum > 0 or not self.dampening)
    require(fits, "dampening", self.dampening, "0 to below 1, and 0 without momentum")
    require(self.trained in TRAINED, "trained", self.trained, ", ".join(TRAINED))
    require(self.loss_positions in ("answer", "letters"), "loss_positions", self.loss_positions, "answer, letters")

  def rule(self) -> optax.GradientTransformation:
    """See Recipe."""
    velocity = optax.trace(decay=self.momentum)
    return optax.chain(optax.scale(1 - self.dampening), velocity) if self.dampening else velocity

  def shared(self) -> "TrainSettings":
    """All but the noise, which is a lane's own."""
    return dataclasses.replace(self, noise_std=0.0)


@dataclasses.dataclass(frozen=True)
class AdamWSettings(Recipe):
  """AdamW on a language model (paper App. C).

  The paper names the optimizer and its learning rates only; the rest are minGPT's defaults.

  Attributes:
    beta1: decay of the mean of gradients.
    beta2: decay of the mean of their squares.
    weight_decay: of the weights of linear layers; biases, embeddings and norms have none.
    loss_positions: `answer`, the answer's token only (fine-tuning), or `text`, every token (pretraining).
    answer_weight: with `text`, how often the answer's loss is added to the mean over all tokens.
    mixed: whether lanes mix pretraining samples into their batches (App. E.1); compiles their sampler in.
  """

  beta1: float
  beta2: float
  weight_decay: float
  answer_weight: float
  mixed: bool

  def __post_init__(self):
    super().__post_init__()
    for field in ("beta1", "beta2"):
      require(0 <= getattr(self, field) < 1, field, getattr(self, field), "0 to below 1")
    for field in ("weight_decay", "answer_weight"):
      require_not_negative(self, field)
    require(self.loss_positions in ("answer", "text"), "loss_positions", self.loss_positions, "answer, text")

  def rule(self) -> optax.GradientTransformation:
    """See Recipe."""
    decay = optax.add_decayed_weights(self.weight_decay, mask=lambda params: trained_mask(params, "matrices"))
    return optax.chain(optax.scale_by_adam(self.beta1, self.beta2), decay)

  def shared(self) -> "AdamWSettings":
    """All of it."""
    return self


def schedule(settings: Recipe) -> optax.Schedule:
  """Share of the maximum learning rate at each step: linear from 0, then cosine (paper App. B)."""
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=1.0,
    warmup_steps=settings.warmup_steps,
    decay_steps=settings.steps,
    end_value=settings.final_fraction,
  )


def direction(settings: Recipe) -> optax.GradientTransformation:
  """Clipped gradient through the optimizer's rule; the step along it is -lr * schedule(step)."""
  clip = optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity()
  return optax.chain(clip, settings.rule())


def trained_mask(params: Params, trained: str) -> Params:
  """Pytree of bools: which leaves train."""

  def trains(path, _) -> bool:
    names = [entry.key for entry in path]
    embedding = names[-1] == "embedding"
    if trained == "matrices":
      return names[-1] == "kernel"
    return not (trained == "no_embeddings" and embedding)

  return jax.tree_util.tree_map_with_path(trains, params)


def trained_only(grads: Params, trained: str) -> Params:
  """The gradient with zeros where nothing trains."""
  mask = trained_mask(grads, trained)
  return jax.tree.map(lambda grad, trains: grad if trains else jnp.zeros_like(grad), grads, mask)


def add_noise(key, params: Params, std: float) -> Params:
  """Gaussian noise of that standard deviation on every parameter, zero-padded ones included."""
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(key, len(leaves))
  noisy = [leaf + std * jax.random.normal(k, leaf.shape, jnp.float32) for k, leaf in zip(keys, leaves, strict=True)]
  return treedef.unflatten(noisy)
