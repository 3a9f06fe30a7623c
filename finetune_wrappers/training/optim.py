"""The paper's two optimizers and their schedule, with the learning rate as a lane's traced value."""

import dataclasses
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import optax

from finetune_wrappers.rules import (
  INT32,
  NOT_NEGATIVE,
  SHARE,
  SHARE_BELOW_1,
  SIZE,
  STEPS,
  Checked,
  Many,
  ruled,
  whole,
)
from finetune_wrappers.training.methods import MATRICES, mask_of
from finetune_wrappers.types import Params, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(Checked):
  """How long and by which steps every lane of a program trains.

  Attributes:
    steps: iterations (paper: 10 000).
    batch_size: strings an iteration (paper: 96).
    warmup_steps: linear warm-up to the maximum learning rate (paper: 2 000).
    final_fraction: the cosine ends at this share of the maximum (paper: 1/100).
    clip_norm: largest global norm of a gradient; 0 means none. The paper mentions none.
    microbatches: parts that a batch's gradient is computed in; the same gradient up to rounding, and on a
      CPU up to 1.4 times faster where a whole batch's activations outgrow the cache.
    eval_steps: iterations at which the test sets are answered, ascending; the last is `steps`.
  """

  steps: int = ruled(STEPS)
  batch_size: int = ruled(SIZE)
  warmup_steps: int = ruled(whole(0, INT32))
  final_fraction: float = ruled(SHARE)
  clip_norm: float = ruled(NOT_NEGATIVE)
  microbatches: int = ruled(SIZE)
  eval_steps: tuple[int, ...] = ruled(Many(whole(0, INT32)))
  OPEN: ClassVar[dict[str, Any]] = {}  # values of a subclass's own fields that the paper leaves open

  def __post_init__(self):
    super().__post_init__()
    require(self.warmup_steps < self.steps, "warmup_steps", self.warmup_steps, f"less than steps ({self.steps})")
    fits = self.batch_size % self.microbatches == 0
    require(fits, "microbatches", self.microbatches, f"a divisor of batch_size ({self.batch_size})")
    rising = list(self.eval_steps) == sorted(self.eval_steps) and self.eval_steps[-1] == self.steps
    require(rising, "eval_steps", self.eval_steps, f"rising numbers from 0, the last {self.steps}")

  @classmethod
  def paper(cls, steps: int, *, eval_every: int, **changed: Any) -> Self:
    """The paper's recipe for any number of steps: batch 96, a fifth of warm-up, cosine to 1/100 of the maximum.

    What the paper leaves open is as `configs` has it: gradients are clipped at norm 1.

    Args:
      steps: iterations.
      eval_every: steps between evaluations; the last step has one too.
      **changed: fields that differ.
    """
    values: dict[str, Any] = {"steps": steps, "batch_size": 96, "warmup_steps": steps // 5, "final_fraction": 0.01}
    values |= {"clip_norm": 1.0, "microbatches": 1, "eval_steps": (*range(0, steps, eval_every), steps), **cls.OPEN}
    return cls(**values | changed)

  def rule(self) -> optax.GradientTransformation:
    """From clipped gradients to a direction."""
    raise NotImplementedError

  def schedule(self) -> optax.Schedule:
    """Share of the maximum learning rate at each step: linear from 0, then cosine (paper App. B)."""
    return optax.warmup_cosine_decay_schedule(
      init_value=0.0,
      peak_value=1.0,
      warmup_steps=self.warmup_steps,
      decay_steps=self.steps,
      end_value=self.final_fraction,
    )

  def direction(self) -> optax.GradientTransformation:
    """Clipped gradient through the optimizer's rule; the step along it is -lr * schedule(step)."""
    clip = optax.clip_by_global_norm(self.clip_norm) if self.clip_norm else optax.identity()
    return optax.chain(clip, self.rule())


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
  """SGD with momentum, as on compiled models (paper App. B).

  Without clipping lr 1e-1 diverges (configs/tab03_readings.py tries other readings). Where every gradient is clipped,
  as in most of Max-identifier's cells (results/README.md), a step is at most
  lr * clip_norm * (1 - dampening) / (1 - momentum) long, whatever the loss.

  Attributes:
    momentum: the paper says "with momentum", 0.9 is the reading.
    dampening: as in PyTorch but from the first step on: a gradient enters the velocity times 1 - dampening. 0 sums
      gradients up, so that steps grow 1 / (1 - momentum) times as long; the momentum's own value averages them.
  """

  momentum: float = ruled(SHARE_BELOW_1)
  OPEN = {"momentum": 0.9}
  dampening: float = ruled(SHARE_BELOW_1, 0.0, came_later=True)

  def __post_init__(self):
    super().__post_init__()
    fits = self.momentum > 0 or not self.dampening
    require(fits, "dampening", self.dampening, "0 without momentum")

  def rule(self) -> optax.GradientTransformation:
    """See Optimizer."""
    velocity = optax.trace(decay=self.momentum)
    return optax.chain(optax.scale(1 - self.dampening), velocity) if self.dampening else velocity


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
  """AdamW, as on language models (paper App. C).

  The paper names the optimizer and its learning rates only; the rest are minGPT's defaults.

  Attributes:
    beta1: decay of the mean of gradients.
    beta2: decay of the mean of their squares.
    weight_decay: of matrices, arrays of two axes or more that are not called embedding; biases and norms have none.
  """

  beta1: float = ruled(SHARE_BELOW_1)
  beta2: float = ruled(SHARE_BELOW_1)
  weight_decay: float = ruled(NOT_NEGATIVE)
  OPEN = {"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1}

  def rule(self) -> optax.GradientTransformation:
    """See Optimizer."""
    decay = optax.add_decayed_weights(self.weight_decay, mask=lambda params: mask_of(params, MATRICES))
    return optax.chain(optax.scale_by_adam(self.beta1, self.beta2), decay)


def add_noise(key, params: Params, std: float) -> Params:
  """Gaussian noise of that standard deviation on every parameter, zero-padded ones included."""
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(key, len(leaves))
  noisy = [leaf + std * jax.random.normal(k, leaf.shape, jnp.float32) for k, leaf in zip(keys, leaves, strict=True)]
  return treedef.unflatten(noisy)
