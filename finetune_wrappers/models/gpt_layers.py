"""Sizes and layers of a GPT. `gpt.GPT` puts them together; its docstring says which ways through them there are.

Every linear layer multiplies two matrices, strings and positions being one axis. With two axes the gradient of a
kernel sums over both, which XLA on a CPU does through a transposed copy of the activations that computes layer norms
and residual sums once more: a step of the paper's size then takes 5 % longer, and 30 % if layer norms take two passes.
With one axis there is no such copy, and barriers against fusion gain nothing.

With `compute_dtype` bfloat16 the products of linear layers and attention are in bfloat16. Parameters and gradients, the
residual stream, biases, layer norms, GELU, softmax, embeddings and logits stay float32.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from finetune_wrappers.rules import SIZE, Checked, one_of, ruled, whole
from finetune_wrappers.types import Params, require

STD = 0.02
PIECE = 64  # positions; on one core 32 and 128 were no faster, and all in one a tenth slower


@dataclasses.dataclass(frozen=True, kw_only=True)
class GPTConfig(Checked):
  """Sizes of a GPT; the defaults are the paper's, about 3M parameters.

  Attributes:
    vocab_size: V, token ids.
    length: most positions.
    blocks: of attention and MLP.
    heads: H.
    width: D, size of the residual stream; MLPs have 4 D hidden units.
    compute_dtype: `float32` or `bfloat16`, what products are computed in.
  """

  vocab_size: int = ruled(SIZE)
  length: int = ruled(SIZE)
  blocks: int = ruled(whole(1, 1000), 6)
  heads: int = ruled(whole(1, 1000), 6)
  width: int = ruled(whole(1, 2**16), 192)
  compute_dtype: str = ruled(one_of("float32", "bfloat16"), "float32")

  def __post_init__(self):
    super().__post_init__()
    require(self.width % self.heads == 0, "width", self.width, f"a multiple of heads ({self.heads})")


def product(x, matrix, precision=None):
  """The product over the last axis, strings and positions as one axis: see the module's docstring."""
  flat = jnp.matmul(x.reshape(-1, x.shape[-1]), matrix, precision=precision)
  return flat.reshape(*x.shape[:-1], matrix.shape[-1])


def attend(q_BxTxHxK, k_BxTxHxK, v_BxTxHxK, piece: int):
  """Causal attention of queries that are scaled already, `piece` positions at a time.

  Returns:
    (means of the values [B, T, H, K], softmax weights of each piece [B, H, its positions, positions up to its end]).
  """
  length = q_BxTxHxK.shape[1]
  mixed, weights = [], []
  for start in range(0, length, piece):
    stop = min(start + piece, length)
    seen = np.arange(start, stop)[:, None] >= np.arange(stop)
    scores_BxHxPxS = jnp.einsum("bphk,bshk->bhps", q_BxTxHxK[:, start:stop], k_BxTxHxK[:, :stop]).astype(jnp.float32)
    weights.append(jax.nn.softmax(jnp.where(seen, scores_BxHxPxS, -jnp.inf)))
    mixed.append(jnp.einsum("bhps,bshk->bphk", weights[-1].astype(v_BxTxHxK.dtype), v_BxTxHxK[:, :stop]))
  return jnp.concatenate(mixed, axis=1), weights


class Kernel(nn.Module):
  """x W in float32, the product in `dtype`, with W at hand for products that are re-associated."""

  inputs: int
  features: int
  dtype: str
  std: float = STD

  def setup(self):
    self.kernel = self.param("kernel", nn.initializers.normal(self.std), (self.inputs, self.features))

  def __call__(self, x):
    return product(x.astype(self.dtype), self.kernel.astype(self.dtype)).astype(jnp.float32)


class Linear(Kernel):
  """x W + b."""

  def setup(self):
    super().setup()
    self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

  def __call__(self, x):
    # The bias is added in float32, so that its gradient, a sum over everything, is summed in float32.
    return super().__call__(x) + self.bias


class Attention(nn.Module):
  """Causal self-attention of H heads, queries, keys and values from one product."""

  config: GPTConfig

  def setup(self):
    width, dtype = self.config.width, self.config.compute_dtype
    self.size = width // self.config.heads
    self.qkv = Linear(width, 3 * width, dtype)
    self.linear = Linear(width, width, dtype, residual_std(self.config.blocks))

  def heads(self, x):
    """[..., n D] as [..., n, H, K]."""
    return x.reshape(*x.shape[:-1], -1, self.config.heads, self.size)

  def __call__(self, x_BxTxD, piece: int):
    """(output [B, T, D], softmax weights of each piece [B, H, its positions, positions up to its end])."""
    q, k, v = jnp.moveaxis(self.heads(self.qkv(x_BxTxD).astype(self.qkv.dtype)), 2, 0)
    mixed, weights = attend(self.size**-0.5 * q, k, v, piece)
    return self.linear(mixed.reshape(x_BxTxD.shape)), weights

  def last(self, x_BxTxD):
    """The output at the last position, [B, D]; no key or value is formed."""
    x = x_BxTxD.astype(self.qkv.dtype)
    query, key, value = jnp.moveaxis(self.heads(self.qkv.kernel.astype(x.dtype)), 1, 0)
    bias_q, _, bias_v = self.heads(self.qkv.bias)  # a key's bias adds one number to all scores of a query: no effect
    q_BxHxK = self.size**-0.5 * (jnp.einsum("bd,dhk->bhk", x[:, -1], query) + bias_q)
    back_BxHxD = jnp.einsum("bhk,dhk->bhd", q_BxHxK.astype(x.dtype), key)
    weights_BxHxT = jax.nn.softmax(jnp.einsum("bhd,btd->bht", back_BxHxD, x).astype(jnp.float32))
    mean_BxHxD = jnp.einsum("bht,btd->bhd", weights_BxHxT.astype(x.dtype), x)
    mixed_BxHxK = jnp.einsum("bhd,dhk->bhk", mean_BxHxD, value) + bias_v
    return self.linear(mixed_BxHxK.reshape(x.shape[0], -1))


class Mlp(nn.Module):
  """D to 4 D hidden units and back."""

  config: GPTConfig

  def setup(self):
    width, dtype = self.config.width, self.config.compute_dtype
    self.linear_1 = Linear(width, 4 * width, dtype)
    self.linear_2 = Linear(4 * width, width, dtype, residual_std(self.config.blocks))

  def __call__(self, x):
    """(output [..., D], hidden units [..., 4 D] after GELU, float32)."""
    hidden = jax.nn.gelu(self.linear_1(x), approximate=True)  # minGPT's NewGELU
    return self.linear_2(hidden), hidden


class Block(nn.Module):
  """Attention and MLP, each after a layer norm and added to the residual stream."""

  config: GPTConfig

  def setup(self):
    self.norm_1, self.norm_2 = norm(), norm()
    self.attn, self.mlp = Attention(self.config), Mlp(self.config)

  def __call__(self, x_BxTxD, piece: int = PIECE):
    """(stream after the block [B, T, D], softmax weights of each piece, hidden units [B, T, 4 D])."""
    mixed, weights = self.attn(self.norm_1(x_BxTxD), piece)
    x_BxTxD = x_BxTxD + mixed
    out, hidden = self.mlp(self.norm_2(x_BxTxD))
    return x_BxTxD + out, weights, hidden

  def last(self, x_BxTxD):
    """The stream after the block at the last position, [B, D]."""
    x_BxD = x_BxTxD[:, -1] + self.attn.last(self.norm_1(x_BxTxD))
    return x_BxD + self.mlp(self.norm_2(x_BxD))[0]


def norm() -> nn.LayerNorm:
  """Layer norm over D, in float32."""
  # Flax's default takes mean and variance in one pass over the stream; with two, a step takes 5 % longer on a CPU.
  return nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32)


def residual_std(blocks: int) -> float:
  """Of what is added to the stream, which sums two of them for each block."""
  return STD / math.sqrt(2 * blocks)


def drawn(model: nn.Module, residual: tuple[str, ...], seed: int) -> Params:
  """Weights before training, float32: normal, biases 0 and norms the identity.

  NumPy draws them, in the order of the parameters' sorted names: the same numbers everywhere, and no compilation.

  Args:
    model: has `config.blocks`, and takes token ids.
    residual: layers that add to the residual stream.
    seed: 0 or more.
  """
  generator = np.random.default_rng(seed)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]

  def draw(path, leaf) -> np.ndarray:
    *_, owner, name = (entry.key for entry in path)
    if name in ("scale", "bias"):
      return np.full(leaf.shape, float(name == "scale"), np.float32)
    std = residual_std(model.config.blocks) if owner in residual else STD
    return (std * generator.standard_normal(leaf.shape)).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


class Head(nn.Module):
  """Logits [..., V], without a bias."""

  inputs: int
  features: int

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", nn.initializers.normal(STD), (self.inputs, self.features))
    return product(x, kernel)
