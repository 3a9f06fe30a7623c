"""Attention and activation maps: what a model looks at, and which hidden units answer."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from finetune_wrappers.types import ModelOutput, Params


def outputs(model, params: Params, tokens_BxT) -> ModelOutput:
  """The model's ModelOutput at highest matmul precision, as NumPy arrays."""
  with jax.default_matmul_precision("highest"):
    return jax.device_get(_apply(model, params, tokens_BxT))


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, params: Params, tokens_BxT) -> ModelOutput:
  return model.apply({"params": params}, tokens_BxT)


def attended_mass(output: ModelOutput, block: int, attending: Any, attended_BxT: Any) -> Any:
  """Share of attention that lands on marked positions (Figs. 10, 39-45: on the a's, on the b's).

  Args:
    output: of the model.
    block: which block's maps; heads are averaged.
    attending: position that attends.
    attended_BxT: bool [B, T], positions that count as attended.

  Returns:
    float [B], in [0, 1].
  """
  weights_BxT = output.attention[block][:, :, attending, :].mean(axis=1)
  return jnp.where(attended_BxT, weights_BxT, 0.0).sum(axis=-1)
