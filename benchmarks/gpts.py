"""The GPT as others write it: what one would write first in Flax, and minGPT in PyTorch."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from benchmarks.turns import torch
from configs import fig05_behaviour
from experiments.plan import plans
from finetune_wrappers.models import gpt

RATE = 1e-3


def plan_of(size: str) -> Any:
  """The PCFG half at that preset."""
  return plans(fig05_behaviour.get_config(size))[0]


class _Block(nn.Module):
  config: gpt.GPTConfig

  @nn.compact
  def __call__(self, x):
    width, heads = self.config.width, self.config.heads
    qkv = nn.Dense(3 * width, name="qkv")(nn.LayerNorm(1e-5, name="norm_1")(x))
    q, k, v = (part.reshape(*part.shape[:2], heads, -1) for part in jnp.split(qkv, 3, axis=-1))
    scores = jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(width // heads)
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    weights = nn.softmax(jnp.where(seen, scores, -jnp.inf))
    self.sow("maps", "weights", weights)
    x = x + nn.Dense(width, name="linear")(jnp.einsum("bhts,bshk->bthk", weights, v).reshape(x.shape))
    hidden = nn.gelu(nn.Dense(4 * width, name="linear_1")(nn.LayerNorm(1e-5, name="norm_2")(x)))
    return x + nn.Dense(width, name="linear_2")(hidden)


class First(nn.Module):
  """Dense layers, whole attention maps, logits everywhere."""

  config: gpt.GPTConfig

  @nn.compact
  def __call__(self, tokens):
    config = self.config
    x = nn.Embed(config.vocab_size, config.width, name="token_embed")(tokens)
    x = x + nn.Embed(config.length, config.width, name="pos_embed")(jnp.arange(tokens.shape[1]))
    for i in range(config.blocks):
      x = _Block(config, name=f"blocks_{i}")(x)
    return nn.Dense(config.vocab_size, use_bias=False, name="head")(nn.LayerNorm(1e-5, name="norm")(x))


def first_params(params: dict) -> dict:
  """Ours, with a block's layers side by side."""
  flat: Any = traverse_util.flatten_dict(params)
  return traverse_util.unflatten_dict({tuple(n for n in k if n not in ("attn", "mlp")): v for k, v in flat.items()})


class TorchSide:
  """minGPT in PyTorch, with explicit attention or its own; `compiled` by torch.compile."""

  steps = 1  # in a timed call

  def __init__(
    self,
    config: gpt.GPTConfig,
    params: dict,
    tokens: np.ndarray,
    targets: np.ndarray,
    own: bool,
    compiled: bool = False,
  ):
    self._config, self._own = config, own
    self._forward = torch.compile(self.logits) if compiled else self.logits
    flat: Any = traverse_util.flatten_dict(first_params(params), sep="/")
    self._params = {
      # PyTorch keeps a linear layer's weight as [outputs, inputs].
      name: torch.tensor(w.T if name.endswith("kernel") else w).contiguous().requires_grad_()
      for name, w in flat.items()
    }
    self._optimizer = torch.optim.AdamW(self._params.values(), RATE, weight_decay=1e-4, fused=True)
    self._tokens = torch.tensor(tokens).long()
    self._targets = torch.tensor(targets).long()
    self._future = torch.ones(tokens.shape[1], tokens.shape[1]).triu(1).bool()

  def _layer(self, name, x):
    kind = "scale" if "norm" in name else "kernel"
    weight, bias = self._params[f"{name}/{kind}"], self._params.get(f"{name}/bias")
    if kind == "scale":
      return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias)
    return torch.nn.functional.linear(x, weight, bias)

  def _attend(self, q, k, v):
    if self._own:
      return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(self._future, float("-inf"))
    return scores.softmax(-1) @ v

  def logits(self):
    """Those that are trained."""
    config, layer = self._config, self._layer
    x = self._params["token_embed/embedding"][self._tokens]
    x = x + self._params["pos_embed/embedding"][: x.shape[1]]
    for block in (f"blocks_{i}" for i in range(config.blocks)):
      qkv = layer(f"{block}/qkv", layer(f"{block}/norm_1", x)).split(config.width, dim=2)
      q, k, v = (part.unflatten(2, (config.heads, -1)).transpose(1, 2) for part in qkv)
      x = x + layer(f"{block}/linear", self._attend(q, k, v).transpose(1, 2).flatten(2))
      hidden = torch.nn.functional.gelu(layer(f"{block}/linear_1", layer(f"{block}/norm_2", x)), approximate="tanh")
      x = x + layer(f"{block}/linear_2", hidden)
    return layer("head", layer("norm", x[:, -1] if self._targets.ndim == 1 else x))

  def run(self, steps: int = 1) -> float:
    """The loss before the last of these steps."""
    loss: Any = None
    for _ in range(steps):
      loss = torch.nn.functional.cross_entropy(self._forward().flatten(0, -2), self._targets.flatten())
      self._optimizer.zero_grad(set_to_none=True)
      loss.backward()
      self._optimizer.step()
    return loss.item()
