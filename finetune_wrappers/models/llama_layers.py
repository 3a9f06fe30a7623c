"""Sizes and layers of a Llama. `llama.Llama` puts them together.

Products and attention in pieces are those of `gpt_layers`, and so is what `compute_dtype` bfloat16 means: products of
linear layers and attention are in bfloat16; parameters and gradients, the residual stream, norms with their scales,
rotations, the gate, softmax, embeddings and logits stay float32. A norm's output is rounded once, after its scale.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from finetune_wrappers.models.gpt_layers import PIECE, Kernel, attend, residual_std
from finetune_wrappers.rules import ABOVE_0, FLAG, SIZE, Checked, one_of, ruled, whole
from finetune_wrappers.types import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaConfig(Checked):
  """Sizes of a Llama.

  The paper's 91M parameters are `LlamaConfig(vocab_size=8192, length=1024, blocks=12, heads=12, kv_heads=12, width=768,
  hidden=2048)`: the paper gives no `hidden`, and 2048, Llama's 2/3 of 4 D, with a tied head makes 91.2M.

  Attributes:
    vocab_size: V, token ids.
    length: most positions.
    blocks: of attention and MLP.
    heads: H, of queries.
    kv_heads: G, of keys and values; H / G heads of queries share one.
    width: D, size of the residual stream; a head has K = D / H.
    hidden: F, units of an MLP.
    rope_theta: base of the rotary angles; pair j of a head turns by position * rope_theta^(-2j / K).
    norm_eps: added to the mean square in norms.
    tied: whether the head is the transposed embedding.
    compute_dtype: `float32` or `bfloat16`, what products are computed in.
  """

  vocab_size: int = ruled(SIZE)
  length: int = ruled(SIZE)
  blocks: int = ruled(whole(1, 1000))
  heads: int = ruled(whole(1, 1000))
  kv_heads: int = ruled(whole(1, 1000))
  width: int = ruled(whole(1, 2**16))
  hidden: int = ruled(whole(1, 2**18))
  rope_theta: float = ruled(ABOVE_0, 10000.0)
  norm_eps: float = ruled(ABOVE_0, 1e-5)
  tied: bool = ruled(FLAG, True)
  compute_dtype: str = ruled(one_of("float32", "bfloat16"), "float32")

  def __post_init__(self):
    super().__post_init__()
    heads = self.heads
    require(self.width % (2 * heads) == 0, "width", self.width, f"a multiple of 2 heads ({2 * heads}): rotary pairs")
    require(heads % self.kv_heads == 0, "kv_heads", self.kv_heads, f"a divisor of heads ({heads})")


def rotary_table(config: LlamaConfig) -> np.ndarray:
  """Cosine and sine of every position and pair, float32 [length, 2, K/2]; angles are float64 until then."""
  size = config.width // config.heads
  angles = np.arange(config.length)[:, None] * config.rope_theta ** (-np.arange(0, size, 2) / size)
  return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def rotated(x, turns):
  """Each pair of a head turned by its position's angle; dimension j pairs with j + K/2, as in Hugging Face's Llama.

  Args:
    x: [..., T, N, K].
    turns: rows of `rotary_table`, [..., T, 2, K/2].
  """
  cos, sin = turns[..., :1, :], turns[..., 1:, :]
  first, second = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class Norm(nn.Module):
  """x over its root mean square, times a scale; in float32."""

  eps: float

  @nn.compact
  def __call__(self, x):
    scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps) * scale


class Attention(nn.Module):
  """Causal self-attention with rotary positions; heads of queries share keys and values in groups."""

  config: LlamaConfig

  def setup(self):
    config, dtype = self.config, self.config.compute_dtype
    self.size = config.width // config.heads
    self.query = Kernel(config.width, config.width, dtype)
    self.key = Kernel(config.width, config.kv_heads * self.size, dtype)
    self.value = Kernel(config.width, config.kv_heads * self.size, dtype)
    self.linear = Kernel(config.width, config.width, dtype, residual_std(config.blocks))

  def split(self, x):
    """[..., N K] as [..., N, K]."""
    return x.reshape(*x.shape[:-1], -1, self.size)

  def queries(self, x, turns):
    """Scaled and rotated, [..., T, H, K], in the dtype of products."""
    return rotated(self.size**-0.5 * self.split(self.query(x)), turns).astype(self.config.compute_dtype)

  def keys(self, x, turns):
    """Rotated, [..., T, G, K], in the dtype of products."""
    return rotated(self.split(self.key(x)), turns).astype(self.config.compute_dtype)

  def values(self, x):
    """[..., T, G, K], in the dtype of products."""
    return self.split(self.value(x)).astype(self.config.compute_dtype)

  def __call__(self, x_BxTxD, turns, piece: int):
    """(output [B, T, D], softmax weights of each piece [B, H, its positions, positions up to its end])."""
    shared = self.config.heads // self.config.kv_heads
    k, v = (jnp.repeat(part, shared, axis=2) for part in (self.keys(x_BxTxD, turns), self.values(x_BxTxD)))
    mixed, weights = attend(self.queries(x_BxTxD, turns), k, v, piece)
    return self.linear(mixed.reshape(x_BxTxD.shape)), weights

  def last(self, x_BxTxD, turns):
    """The output at the last position, [B, D]; no value is formed, as attention is linear in values."""
    x, groups = x_BxTxD.astype(self.config.compute_dtype), self.config.kv_heads
    q_BxGxRxK = self.queries(x_BxTxD[:, -1:], turns[-1:]).reshape(len(x), groups, -1, self.size)
    scores_BxGxRxT = jnp.einsum("bgrk,btgk->bgrt", q_BxGxRxK, self.keys(x_BxTxD, turns)).astype(jnp.float32)
    mean_BxGxRxD = jnp.einsum("bgrt,btd->bgrd", jax.nn.softmax(scores_BxGxRxT).astype(x.dtype), x)
    value_DxGxK = self.split(self.value.kernel.astype(x.dtype))
    mixed_BxGxRxK = jnp.einsum("bgrd,dgk->bgrk", mean_BxGxRxD, value_DxGxK)
    return self.linear(mixed_BxGxRxK.reshape(x.shape[0], -1))

  def cached(self, x_BxTxD, turns, seen_BxTxS, at, cache):
    """Like `__call__`, the keys and values of earlier positions from a cache: (output [B, T, D], cache)."""
    new = (jnp.swapaxes(part, 1, 2) for part in (self.keys(x_BxTxD, turns), self.values(x_BxTxD)))
    k_BxGxSxK, v_BxGxSxK = cache = tuple(
      jax.lax.dynamic_update_slice_in_dim(old, part, at, axis=2) for old, part in zip(cache, new, strict=True)
    )
    q = self.queries(x_BxTxD, turns)
    q_BxTxGxRxK = q.reshape(*q.shape[:2], self.config.kv_heads, -1, self.size)
    scores_BxGxRxTxS = jnp.einsum("btgrk,bgsk->bgrts", q_BxTxGxRxK, k_BxGxSxK).astype(jnp.float32)
    weights = jax.nn.softmax(jnp.where(seen_BxTxS[:, None, None], scores_BxGxRxTxS, -jnp.inf))
    mixed = jnp.einsum("bgrts,bgsk->btgrk", weights.astype(v_BxGxSxK.dtype), v_BxGxSxK)
    return self.linear(mixed.reshape(x_BxTxD.shape)), cache


class Mlp(nn.Module):
  """D to F hidden units and back: silu(gate) times up (SwiGLU)."""

  config: LlamaConfig

  def setup(self):
    width, hidden, dtype = self.config.width, self.config.hidden, self.config.compute_dtype
    self.gate, self.up = Kernel(width, hidden, dtype), Kernel(width, hidden, dtype)
    self.down = Kernel(hidden, width, dtype, residual_std(self.config.blocks))

  def __call__(self, x):
    """(output [..., D], gated units [..., F], float32)."""
    hidden = jax.nn.silu(self.gate(x)) * self.up(x)
    return self.down(hidden), hidden


class Block(nn.Module):
  """Attention and MLP, each after a norm and added to the residual stream."""

  config: LlamaConfig

  def setup(self):
    self.norm_1, self.norm_2 = Norm(self.config.norm_eps), Norm(self.config.norm_eps)
    self.attn, self.mlp = Attention(self.config), Mlp(self.config)

  def __call__(self, x_BxTxD, turns, piece: int = PIECE):
    """(stream after the block [B, T, D], softmax weights of each piece, gated units [B, T, F])."""
    mixed, weights = self.attn(self.norm_1(x_BxTxD), turns, piece)
    x_BxTxD = x_BxTxD + mixed
    out, hidden = self.mlp(self.norm_2(x_BxTxD))
    return x_BxTxD + out, weights, hidden

  def last(self, x_BxTxD, turns):
    """The stream after the block at the last position, [B, D]."""
    x_BxD = x_BxTxD[:, -1] + self.attn.last(self.norm_1(x_BxTxD), turns)
    return x_BxD + self.mlp(self.norm_2(x_BxD))[0]

  def cached(self, x_BxTxD, *place):
    """(stream after the block [B, T, D], cache); `place` is that of Attention.cached."""
    mixed, cache = self.attn.cached(self.norm_1(x_BxTxD), *place)
    x_BxTxD = x_BxTxD + mixed
    return x_BxTxD + self.mlp(self.norm_2(x_BxTxD))[0], cache
