"""Llama in Flax Linen: RMS norms, rotary positions, SwiGLU, no biases, grouped-query heads, tied or untied head.

`__call__` computes everything and returns a ModelOutput. The other methods compute the same function up to rounding,
and only what training, probing and generation need of it:

* Attention goes through the string in pieces of 64 positions, as in `gpt.GPT`.
* What is read at one position costs the last block one query and one MLP there, and its keys: no value is formed.
* `cached` keeps keys and values of earlier positions, for `generate.generate`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from finetune_wrappers.models.gpt_layers import STD, Head, drawn, product
from finetune_wrappers.models.llama_layers import Block, LlamaConfig, Norm, rotary_table
from finetune_wrappers.models.model import BlockModel
from finetune_wrappers.types import ModelOutput, Params, require


class Llama(nn.Module, BlockModel):
  """A Llama over token ids.

  Methods raise InputError for strings longer than `config.length` and for a position that is not in the string.

  Attributes:
    config: its sizes.
  """

  config: LlamaConfig

  def setup(self):
    config = self.config
    self.token_embed = nn.Embed(config.vocab_size, config.width, embedding_init=nn.initializers.normal(STD))
    self.blocks = [Block(config) for _ in range(config.blocks)]
    self.norm = Norm(config.norm_eps)
    if not config.tied:
      self.head = Head(config.width, config.vocab_size)

  def __call__(self, tokens_BxT) -> ModelOutput:
    """Everything at every position.

    Args:
      tokens_BxT: int [B, T], T up to `config.length`.

    Returns:
      ModelOutput, all float32, with logits [B, T, V] and hidden units silu(gate) * up.
    """
    x_BxTxD = embedded_BxTxD = self._embed(tokens_BxT)
    residuals, attention, hidden = [], [], []
    for block in self.blocks:
      x_BxTxD, weights, units = block(x_BxTxD, self._turns(tokens_BxT), piece=tokens_BxT.shape[1])
      residuals.append(x_BxTxD)
      attention += weights
      hidden.append(units)
    return ModelOutput(self._logits(x_BxTxD), tuple(residuals), tuple(attention), tuple(hidden), embedded_BxTxD)

  def cache(self, *, batch: int, slots: int) -> Any:
    """Room for keys and values: (k, v) of each block, [B, G, slots, K] of zeros, in the dtype of products."""
    config = self.config
    room = jnp.zeros((batch, config.kv_heads, slots, config.width // config.heads), config.compute_dtype)
    return ((room, room),) * config.blocks

  def cached(self, params: Params, tokens_BxT: Any, *, at: Any, start_B: Any, cache: Any) -> tuple[Any, Any]:
    """Reads further tokens, with those before them from the cache: (logits of the last of them [B, V], new cache).

    Args:
      params: of the model.
      tokens_BxT: int [B, T].
      at: slot of the first of them; may be traced. Nothing may reach past the last slot: XLA would move it there.
      start_B: int [B], the slot at which each string begins; its position is 0, and slots before it are not seen.
      cache: from `cache`, or from a call before.
    """
    place = {"at": at, "start_B": start_B, "cache": cache}
    return self.apply({"params": params}, tokens_BxT, **place, method=Llama.cached_logits)

  def text_logits(self, tokens_BxT) -> Any:
    """`__call__(tokens).logits`, [B, T, V], for training on the text; those at t are for token t + 1."""
    x_BxTxD = self._embed(tokens_BxT)
    for block in self.blocks:
      x_BxTxD = block(x_BxTxD, self._turns(tokens_BxT))[0]
    return self._logits(x_BxTxD)

  def answer_logits(self, tokens_BxT, position: int) -> Any:
    """`__call__(tokens).logits[:, position]`, [B, V], without most of the last block.

    Args:
      tokens_BxT: int [B, T].
      position: where the answer is read, 0 being the first; static.
    """
    return self._logits(self.answer_residuals(tokens_BxT, position)[-1])

  def answer_residuals(self, tokens_BxT, position: int) -> Any:
    """The residual stream at one position, before the first block and after each: [blocks + 1, B, D], float32.

    Args:
      tokens_BxT: int [B, T].
      position: 0 being the first; static.
    """
    length = tokens_BxT.shape[1]
    require(0 <= position < length, "position", position, f"0 to {length - 1}, the string's length being {length}")
    tokens_BxT = tokens_BxT[:, : position + 1]
    x_BxTxD = self._embed(tokens_BxT)
    stream = [x_BxTxD[:, -1]]
    for block in self.blocks[:-1]:
      x_BxTxD = block(x_BxTxD, self._turns(tokens_BxT))[0]
      stream.append(x_BxTxD[:, -1])
    return jnp.stack([*stream, self.blocks[-1].last(x_BxTxD, self._turns(tokens_BxT))])

  def cached_logits(self, tokens_BxT, *, at: Any, start_B: Any, cache: Any) -> Any:
    """See `cached`."""
    slots_T, slots_S = at + jnp.arange(tokens_BxT.shape[1]), jnp.arange(cache[0][0].shape[2])
    # Where a string has not begun, a slot sees itself: of nothing there would be no softmax.
    own = slots_S == slots_T[:, None]
    seen_BxTxS = own | ((slots_S <= slots_T[:, None]) & (slots_S >= start_B[:, None, None]))
    positions_BxT = jnp.maximum(slots_T - start_B[:, None], 0)
    turns = jnp.asarray(rotary_table(self.config))[positions_BxT]
    x_BxTxD, caches = self._embed(tokens_BxT), []
    for block, own_cache in zip(self.blocks, cache, strict=True):
      x_BxTxD, changed = block.cached(x_BxTxD, turns, seen_BxTxS, at, own_cache)
      caches.append(changed)
    return self._logits(x_BxTxD[:, -1]), tuple(caches)

  def _turns(self, tokens_BxT):
    return rotary_table(self.config)[: tokens_BxT.shape[1]]

  def _embed(self, tokens_BxT):
    length, most = tokens_BxT.shape[1], self.config.length
    require(length <= most, "tokens", f"length {length}", f"strings of {most} tokens or fewer")
    # A gather, unlike in `gpt.GPT`: a product with one-hot rows would cost as much as the head. Its transpose, a
    # scatter, adds in an order of its own on GPUs unless XLA_FLAGS has --xla_gpu_deterministic_ops=true.
    return self.token_embed(tokens_BxT)

  def _logits(self, x):
    x = self.norm(x)
    return product(x, self.token_embed.embedding.T) if self.config.tied else self.head(x)


def build(config: LlamaConfig, seed: int) -> tuple[dict[str, Params], dict[str, Any]]:
  """A Llama before training.

  Weights are normal with standard deviation 0.02, over sqrt(2 * blocks) where a layer adds to the residual stream;
  norms are the identity. The same numbers everywhere: see `drawn`.

  Args:
    config: sizes.
    seed: 0 or more.

  Returns:
    (arrays, facts): `{"params": ...}`, float32, and JSON values from which `restore` makes the module.
  """
  params = drawn(Llama(config), residual=("linear", "down"), seed=seed)
  return {"params": params}, {"model": dataclasses.asdict(config)}


def restore(facts: dict[str, Any]) -> Llama:
  """The Flax module that `build` described."""
  return Llama(LlamaConfig(**facts["model"]))
