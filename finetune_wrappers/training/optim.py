"""SGD with momentum as the paper states it, with the learning rate as a lane's traced value."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from finetune_wrappers.types import InputError, Params

TRAINED = ("all", "matrices", "no_embeddings")


@dataclasses.dataclass(frozen=True)
class TrainSettings:
  """What every lane of a program shares: everything but seed, learning rate, C_Tr and initial weights.

  Attributes:
    steps: iterations (paper: 10 000).
    batch_size: strings an iteration (paper: 96).
    warmup_steps: linear warm-up to the maximum learning rate (paper: 2 000).
    final_fraction: the cosine ends at this share of the maximum (paper: 1/100).
    momentum: of SGD; the paper says "with momentum", 0.9 is the reading.
    clip_norm: largest global norm of a gradient; 0 means none. The paper mentions none, but without it
      lr 1e-1 diverges (configs/tab03_readings.py tries others).
    noise_std: standard deviation of the Gaussian noise on the initial weights.
    trained: which parameters train: `all`, `matrices` (no biases, no embeddings) or `no_embeddings`.
    loss_positions: `answer`, the position the answer is read from, or `letters`, every letter's position.
    logit_scale: factor on the logits inside the loss.
    microbatches: parts that a batch's gradient is computed in; the same gradient up to rounding, and on a
      CPU up to 1.4 times faster where a whole batch's activations outgrow the cache.
    eval_steps: iterations at which both test sets are answered, ascending; the last is `steps`.
    eval_size: strings of each test set.
  """

  steps: int
  batch_size: int
  warmup_steps: int
  final_fraction: float
  momentum: float
  clip_norm: float
  noise_std: float
  trained: str
  loss_positions: str
  logit_scale: float
  microbatches: int
  eval_steps: tuple[int, ...]
  eval_size: int

  def __post_init__(self):
    positive = ("steps", "batch_size", "microbatches", "eval_size", "logit_scale")
    for field in positive:
      _require(getattr(self, field) > 0, field, getattr(self, field), "above 0")
    for field in ("warmup_steps", "clip_norm", "noise_std"):
      value = getattr(self, field)
      _require(value >= 0 and math.isfinite(value), field, value, "0 or more")
    _require(self.warmup_steps < self.steps, "warmup_steps", self.warmup_steps, f"less than steps ({self.steps})")
    _require(0 <= self.momentum < 1, "momentum", self.momentum, "0 to below 1")
    _require(0 <= self.final_fraction <= 1, "final_fraction", self.final_fraction, "0 to 1")
    _require(self.trained in TRAINED, "trained", self.trained, ", ".join(TRAINED))
    _require(self.loss_positions in ("answer", "letters"), "loss_positions", self.loss_positions, "answer, letters")
    fits = self.batch_size % self.microbatches == 0
    _require(fits, "microbatches", self.microbatches, f"a divisor of batch_size ({self.batch_size})")
    rising = list(self.eval_steps) == sorted(set(self.eval_steps))
    ends = bool(self.eval_steps) and self.eval_steps[-1] == self.steps and self.eval_steps[0] >= 0
    _require(rising and ends, "eval_steps", self.eval_steps, f"rising numbers from 0, the last {self.steps}")


def _require(ok: bool, field: str, value: Any, allowed: str) -> None:
  if not ok:
    raise InputError(f"{field}: {value!r} is not allowed; use {allowed}")


def schedule(settings: TrainSettings) -> optax.Schedule:
  """Share of the maximum learning rate at each step: linear from 0, then cosine (paper App. B)."""
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=1.0,
    warmup_steps=settings.warmup_steps,
    decay_steps=settings.steps,
    end_value=settings.final_fraction,
  )


def direction(settings: TrainSettings) -> optax.GradientTransformation:
  """Clipped, momentum-averaged gradient; the step along it is -lr * schedule(step)."""
  clip = optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity()
  return optax.chain(clip, optax.trace(decay=settings.momentum))


def trained_mask(params: Params, trained: str) -> Params:
  """Pytree of bools: which leaves train."""

  def trains(path, _) -> bool:
    names = [entry.key for entry in path]
    embedding = names[-1] == "embedding"
    if trained == "matrices":
      return names[-1] == "kernel"
    return not (trained == "no_embeddings" and embedding)

  return jax.tree_util.tree_map_with_path(trains, params)


def add_noise(key, params: Params, std: float) -> Params:
  """Gaussian noise of that standard deviation on every parameter, zero-padded ones included."""
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(key, len(leaves))
  noisy = [leaf + std * jax.random.normal(k, leaf.shape, jnp.float32) for k, leaf in zip(keys, leaves, strict=True)]
  return treedef.unflatten(noisy)
