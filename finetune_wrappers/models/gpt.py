"""minGPT in Flax Linen: learned positions, blocks with the layer norm first, causal attention, untied head.

Architecture and initialisation are those of minGPT (github.com/karpathy/minGPT, `mingpt/model.py`). Dropout is not
used: the paper's data are drawn anew for every step.

`__call__` computes everything and returns a ModelOutput. The other methods compute the same function up to rounding,
and only what training and probing need of it:

* Attention goes through the string in pieces of 64 positions, and a piece looks no further than its own end: on long
  strings almost half of the masked scores are never formed.
* What is read at one position costs the last block next to nothing: one query there, which is carried back through the
  key matrix, so that no key or value is formed (attention is linear in its values), and an MLP there. Attention is
  causal, so what follows the position does not enter at all.

Every linear layer multiplies two matrices, strings and positions being one axis. With two axes the gradient of a
kernel sums over both, which XLA on a CPU does through a transposed copy of the activations that computes layer norms
and residual sums once more: a step of the paper's size then takes 5 % longer, and 30 % if layer norms take two passes.
With one axis there is no such copy, and barriers against fusion gain nothing.

With `compute_dtype` bfloat16 the products of linear layers and attention are in bfloat16. Parameters and gradients, the
residual stream, biases, layer norms, GELU, softmax, embeddings and logits stay float32.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from finetune_wrappers.models.model import Model, Position
from finetune_wrappers.rules import SIZE, Checked, one_of, ruled, whole
from finetune_wrappers.types import ModelOutput, Params, require

_STD = 0.02
_PIECE = 64  # positions; on one core 32 and 128 were no faster, and all in one a tenth slower


@dataclasses.dataclass(frozen=True)
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


def _product(x, matrix, precision=None):
  """The product over the last axis, strings and positions as one axis: see the module's docstring."""
  flat = jnp.matmul(x.reshape(-1, x.shape[-1]), matrix, precision=precision)
  return flat.reshape(*x.shape[:-1], matrix.shape[-1])


class _Linear(nn.Module):
  """x W + b, the product in `dtype`, with the parameters at hand for products that are re-associated."""

  inputs: int
  features: int
  dtype: str
  std: float = _STD

  def setup(self):
    self.kernel = self.param("kernel", nn.initializers.normal(self.std), (self.inputs, self.features))
    self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

  def __call__(self, x):
    # The bias is added in float32, so that its gradient, a sum over everything, is summed in float32.
    return _product(x.astype(self.dtype), self.kernel.astype(self.dtype)).astype(jnp.float32) + self.bias


class _Attention(nn.Module):
  config: GPTConfig

  def setup(self):
    width, dtype = self.config.width, self.config.compute_dtype
    self.size = width // self.config.heads
    self.qkv = _Linear(width, 3 * width, dtype)
    self.linear = _Linear(width, width, dtype, _residual_std(self.config))

  def heads(self, x):
    """[..., n D] as [..., n, H, K]."""
    return x.reshape(*x.shape[:-1], -1, self.config.heads, self.size)

  def __call__(self, x_BxTxD, piece: int):
    """(output [B, T, D], softmax weights of each piece [B, H, its positions, positions up to its end])."""
    q, k, v = jnp.moveaxis(self.heads(self.qkv(x_BxTxD).astype(self.qkv.dtype)), 2, 0)
    q, length = self.size**-0.5 * q, q.shape[1]
    mixed, weights = [], []
    for start in range(0, length, piece):
      stop = min(start + piece, length)
      seen = np.arange(start, stop)[:, None] >= np.arange(stop)
      scores_BxHxPxS = jnp.einsum("bphk,bshk->bhps", q[:, start:stop], k[:, :stop]).astype(jnp.float32)
      weights.append(jax.nn.softmax(jnp.where(seen, scores_BxHxPxS, -jnp.inf)))
      mixed.append(jnp.einsum("bhps,bshk->bphk", weights[-1].astype(v.dtype), v[:, :stop]))
    return self.linear(jnp.concatenate(mixed, axis=1).reshape(x_BxTxD.shape)), weights

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


class _Mlp(nn.Module):
  config: GPTConfig

  def setup(self):
    width, dtype = self.config.width, self.config.compute_dtype
    self.linear_1 = _Linear(width, 4 * width, dtype)
    self.linear_2 = _Linear(4 * width, width, dtype, _residual_std(self.config))

  def __call__(self, x):
    """(output [..., D], hidden units [..., 4 D] after GELU, float32)."""
    hidden = jax.nn.gelu(self.linear_1(x), approximate=True)  # minGPT's NewGELU
    return self.linear_2(hidden), hidden


class _Block(nn.Module):
  config: GPTConfig

  def setup(self):
    self.norm_1, self.norm_2 = _norm(), _norm()
    self.attn, self.mlp = _Attention(self.config), _Mlp(self.config)

  def __call__(self, x_BxTxD, piece: int = _PIECE):
    """(stream after the block [B, T, D], softmax weights of each piece, hidden units [B, T, 4 D])."""
    mixed, weights = self.attn(self.norm_1(x_BxTxD), piece)
    x_BxTxD = x_BxTxD + mixed
    out, hidden = self.mlp(self.norm_2(x_BxTxD))
    return x_BxTxD + out, weights, hidden

  def last(self, x_BxTxD):
    """The stream after the block at the last position, [B, D]."""
    x_BxD = x_BxTxD[:, -1] + self.attn.last(self.norm_1(x_BxTxD))
    return x_BxD + self.mlp(self.norm_2(x_BxD))[0]


def _norm() -> nn.LayerNorm:
  # Flax's default takes mean and variance in one pass over the stream; with two, a step takes 5 % longer on a CPU.
  return nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32)


def _residual_std(config: GPTConfig) -> float:
  """Of what is added to the stream, which sums two of them for each block."""
  return _STD / math.sqrt(2 * config.blocks)


class _Head(nn.Module):
  inputs: int
  features: int

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", nn.initializers.normal(_STD), (self.inputs, self.features))
    return _product(x, kernel)


class GPT(nn.Module, Model):
  """A GPT over token ids.

  Methods raise InputError for strings longer than `config.length` and for a position that is not in the string.

  Attributes:
    config: its sizes.
  """

  config: GPTConfig

  def setup(self):
    config = self.config
    embedding_init = nn.initializers.normal(_STD)
    self.token_embed = nn.Embed(config.vocab_size, config.width, embedding_init=embedding_init)
    self.pos_embed = nn.Embed(config.length, config.width, embedding_init=embedding_init)
    self.blocks = [_Block(config) for _ in range(config.blocks)]
    self.norm = _norm()
    self.head = _Head(config.width, config.vocab_size)

  def __call__(self, tokens_BxT) -> ModelOutput:
    """Everything at every position.

    Args:
      tokens_BxT: int [B, T], T up to `config.length`.

    Returns:
      ModelOutput, all float32, with logits [B, T, V] and hidden units after GELU.
    """
    x_BxTxD = embedded_BxTxD = self._embed(tokens_BxT)
    residuals, attention, hidden = [], [], []
    for block in self.blocks:
      x_BxTxD, weights, units = block(x_BxTxD, piece=tokens_BxT.shape[1])
      residuals.append(x_BxTxD)
      attention += weights
      hidden.append(units)
    logits = self.head(self.norm(x_BxTxD))
    return ModelOutput(logits, tuple(residuals), tuple(attention), tuple(hidden), embedded_BxTxD)

  def forward(self, params: Params, tokens_BxT: Any) -> Any:
    """See Model."""
    return self.apply({"params": params}, tokens_BxT)

  def answer(self, params: Params, tokens_BxT: Any, position: Position) -> Any:
    """See Model."""
    if isinstance(position, tuple):
      return super().answer(params, tokens_BxT, position)
    return self.apply({"params": params}, tokens_BxT, position, method=GPT.answer_logits)

  def text(self, params: Params, tokens_BxT: Any) -> Any:
    """See Model."""
    return self.apply({"params": params}, tokens_BxT, method=GPT.text_logits)

  def stream(self, params: Params, tokens_BxT: Any, position: Position) -> dict[int, Any]:
    """See Model."""
    if isinstance(position, tuple):
      return super().stream(params, tokens_BxT, position)
    found = self.apply({"params": params}, tokens_BxT, position, method=GPT.answer_residuals)
    return dict(enumerate(found))

  def text_logits(self, tokens_BxT) -> Any:
    """`__call__(tokens).logits`, [B, T, V], for training on the text; those at t are for token t + 1."""
    x_BxTxD = self._embed(tokens_BxT)
    for block in self.blocks:
      x_BxTxD = block(x_BxTxD)[0]
    return self.head(self.norm(x_BxTxD))

  def answer_logits(self, tokens_BxT, position: int) -> Any:
    """`__call__(tokens).logits[:, position]`, [B, V], without most of the last block.

    Args:
      tokens_BxT: int [B, T].
      position: where the answer is read, 0 being the first; static.
    """
    return self.head(self.norm(self.answer_residuals(tokens_BxT, position)[-1]))

  def answer_residuals(self, tokens_BxT, position: int) -> Any:
    """The residual stream at one position, before the first block and after each: [blocks + 1, B, D], float32.

    Args:
      tokens_BxT: int [B, T].
      position: 0 being the first; static.
    """
    length = tokens_BxT.shape[1]
    require(0 <= position < length, "position", position, f"0 to {length - 1}, the string's length being {length}")
    x_BxTxD = self._embed(tokens_BxT[:, : position + 1])
    stream = [x_BxTxD[:, -1]]
    for block in self.blocks[:-1]:
      x_BxTxD = block(x_BxTxD)[0]
      stream.append(x_BxTxD[:, -1])
    return jnp.stack([*stream, self.blocks[-1].last(x_BxTxD)])

  def _embed(self, tokens_BxT):
    length, most = tokens_BxT.shape[1], self.config.length
    require(length <= most, "tokens", f"length {length}", f"strings of {most} tokens or fewer")
    # A product instead of a gather: its transpose is a product too, where a gather's is a scatter, which on GPUs adds
    # up in an order of its own each time. At the precision that keeps the embeddings as they are.
    one_hot = jax.nn.one_hot(tokens_BxT, self.config.vocab_size, dtype=jnp.float32)
    return _product(one_hot, self.token_embed.embedding, precision="highest") + self.pos_embed.embedding[:length]


def build(config: GPTConfig, seed: int) -> tuple[dict[str, Params], dict[str, Any]]:
  """A GPT before training.

  Weights are minGPT's: normal with standard deviation 0.02, over sqrt(2 * blocks) where a layer adds to the residual
  stream; biases 0 and layer norms the identity. NumPy draws them, in the order of the parameters' sorted names: the
  same numbers everywhere, and no compilation.

  Args:
    config: sizes.
    seed: 0 or more.

  Returns:
    (arrays, facts): `{"params": ...}`, float32, and JSON values from which `restore` makes the module.
  """
  model, generator = GPT(config), np.random.default_rng(seed)
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]

  def draw(path, leaf) -> np.ndarray:
    *_, owner, name = (entry.key for entry in path)
    if name in ("scale", "bias"):
      return np.full(leaf.shape, float(name == "scale"), np.float32)
    std = _residual_std(config) if owner in ("linear", "linear_2") else _STD
    return (std * generator.standard_normal(leaf.shape)).astype(np.float32)

  return {"params": jax.tree_util.tree_map_with_path(draw, shapes)}, {"model": dataclasses.asdict(config)}


def restore(facts: dict[str, Any]) -> GPT:
  """The Flax module that `build` described."""
  return GPT(GPTConfig(**facts["model"]))
