"""The Llama as others write it in PyTorch: training with its own attention, and decoding with a cache."""

from typing import Any

import numpy as np
from flax import traverse_util

from benchmarks.gpts import RATE
from benchmarks.turns import torch
from finetune_wrappers.models.llama_layers import LlamaConfig, rotary_table

SIZES = {
  "1M": LlamaConfig(vocab_size=512, length=128, blocks=5, heads=4, kv_heads=4, width=128, hidden=344),
  "15M": LlamaConfig(vocab_size=32000, length=256, blocks=6, heads=6, kv_heads=6, width=288, hidden=768),
}


class TorchLlama:
  """A Llama with a tied head in PyTorch; trains with `scaled_dot_product_attention` and fused AdamW."""

  steps = 1  # in a timed call

  def __init__(self, config: LlamaConfig, params: dict, tokens: np.ndarray, targets: np.ndarray):
    self._config = config
    flat: Any = traverse_util.flatten_dict(params, sep="/")
    self._params = {
      # PyTorch keeps a linear layer's weight as [outputs, inputs].
      name: torch.tensor(w.T if name.endswith("kernel") else w).contiguous().requires_grad_()
      for name, w in flat.items()
    }
    self._optimizer = torch.optim.AdamW(self._params.values(), RATE, weight_decay=1e-4, fused=True)
    self._tokens, self._targets = torch.tensor(tokens).long(), torch.tensor(targets).long()
    self._turns = torch.tensor(rotary_table(config))

  def _linear(self, name, x):
    return torch.nn.functional.linear(x, self._params[f"{name}/kernel"])

  def _norm(self, name, x):
    return torch.nn.functional.rms_norm(x, x.shape[-1:], self._params[f"{name}/scale"], self._config.norm_eps)

  def _rotated(self, x, at):
    cos, sin = self._turns[at : at + x.shape[2]].unbind(1)  # x [B, H, T, K]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

  def logits(self, tokens, at: int = 0, caches=None):
    """[B, T, V]; with caches [2, B, H, slots, K], one a block, the tokens stand at position `at` and after."""
    x = self._params["token_embed/embedding"][tokens]
    for i in range(self._config.blocks):
      block, normed = f"blocks_{i}", self._norm(f"blocks_{i}/norm_1", x)
      q, k, v = (
        self._linear(f"{block}/attn/{name}", normed).unflatten(2, (self._config.heads, -1)).transpose(1, 2)
        for name in ("query", "key", "value")
      )
      q, k = self._rotated(q, at), self._rotated(k, at)
      if caches is not None:
        stop = at + tokens.shape[1]
        caches[i][0][:, :, at:stop], caches[i][1][:, :, at:stop] = k, v
        k, v = caches[i][:, :, :, :stop]
      mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=at == 0)
      x = x + self._linear(f"{block}/attn/linear", mixed.transpose(1, 2).flatten(2))
      normed = self._norm(f"{block}/norm_2", x)
      units = torch.nn.functional.silu(self._linear(f"{block}/mlp/gate", normed))
      x = x + self._linear(f"{block}/mlp/down", units * self._linear(f"{block}/mlp/up", normed))
    x = x[:, -1:] if caches is not None else x
    return torch.nn.functional.linear(self._norm("norm", x), self._params["token_embed/embedding"])

  def run(self, steps: int = 1) -> float:
    """The loss before the last of these training steps."""
    loss: Any = None
    for _ in range(steps):
      loss = torch.nn.functional.cross_entropy(self.logits(self._tokens).flatten(0, -2), self._targets.flatten())
      self._optimizer.zero_grad(set_to_none=True)
      loss.backward()
      self._optimizer.step()
    return loss.item()

  def generate(self, prompts: np.ndarray, steps: int) -> np.ndarray:
    """The likeliest tokens after the prompts [B, P], [B, steps]; each step reads one token, the cache has the rest."""
    with torch.inference_mode():
      config, tokens, at, found = self._config, torch.tensor(prompts).long(), 0, []
      shape = (2, len(prompts), config.heads, prompts.shape[1] + steps, config.width // config.heads)
      caches = [torch.zeros(shape) for _ in range(config.blocks)]
      for _ in range(steps):
        logits = self.logits(tokens, at, caches)
        at, tokens = at + tokens.shape[1], logits[:, -1].argmax(-1, keepdim=True)
        found.append(tokens)
      return torch.cat(found, dim=1).numpy()
