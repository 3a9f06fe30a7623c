"""The transformer that Tracr programs are ported into: bidirectional, no normalisation, Flax Linen.

`__call__` computes everything and returns a ModelOutput. `answer_logits` is the same function for training, where more
than half of that cost need not be paid:

* The residual stream is a sum of products (one-hot tokens times embeddings, attended values times W_O, hidden units
  times W_out) and is read by another product, so the two matrices are multiplied instead of the activations:
  `_Stream`. It is narrower than the stream, which Tracr makes wide, and forms it nowhere.
* The answer is read at one position. In the last block only that position's query and MLP count, and since attention
  is linear in its values, keys and values need not be formed at all: the query is carried back through the key matrix,
  and the attended mean of the residual stream forward through the value matrix.

Only roundings differ. One product is not re-associated: the units that turn 1/n into a one-hot count are as large as
`mlp_exactness` and cancel exactly only when W_out sums them, so the MLP before the last block is multiplied out.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune_wrappers.models.model import Model, Position
from finetune_wrappers.types import ModelOutput, Params

_MASKED = -1e30  # Tracr's own value: finite, so a fully masked row is uniform rather than NaN


class _Affine(nn.Module):
  """x W + b with the parameters at hand, for products that are re-associated."""

  features: int
  inputs: int

  def setup(self):
    self.kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.inputs, self.features))
    self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

  def __call__(self, x):
    return x @ self.kernel + self.bias


class _Attention(nn.Module):
  num_heads: int
  key_size: int
  width: int

  def setup(self):
    features = self.num_heads * self.key_size
    self.query = _Affine(features, self.width)
    self.key = _Affine(features, self.width)
    self.value = _Affine(features, self.width)
    self.linear = _Affine(self.width, features)

  def heads(self, x):
    return x.reshape(*x.shape[:-1], self.num_heads, self.key_size)

  def mix(self, q_BxTxHK, k_BxTxHK, v_BxTxHK, mask_TxT):
    """(attended values [B, T, H K] before W_O, attention [B, H, T, T])."""
    q, k, v = self.heads(q_BxTxHK), self.heads(k_BxTxHK), self.heads(v_BxTxHK)
    scores_BxHxTxT = jnp.einsum("bthk,bshk->bhts", q, k) / jnp.sqrt(float(self.key_size))
    if mask_TxT is not None:
      scores_BxHxTxT = jnp.where(mask_TxT, scores_BxHxTxT, _MASKED)
    weights_BxHxTxT = jax.nn.softmax(scores_BxHxTxT)
    mixed = jnp.einsum("bhts,bshk->bthk", weights_BxHxTxT, v)
    return mixed.reshape(*q_BxTxHK.shape), weights_BxHxTxT

  def attend_from(self, stream: "_Stream", position: int, mask_T):
    """The same output at one position, [B, D], without forming any key or value."""
    q_BxHxK = self.heads(self.query(stream.at(position)))
    # A key's bias adds the same number to every score of a query: the softmax does not see it.
    query_BxHxD = jnp.einsum("bhk,dhk->bhd", q_BxHxK, self.heads(self.key.kernel))
    scores_BxHxT = stream.scores(query_BxHxD) / jnp.sqrt(float(self.key_size))
    if mask_T is not None:
      scores_BxHxT = jnp.where(mask_T, scores_BxHxT, _MASKED)
    mean_BxHxD = stream.mean(jax.nn.softmax(scores_BxHxT))
    mixed_BxHxK = jnp.einsum("bhd,dhk->bhk", mean_BxHxD, self.heads(self.value.kernel)) + self.heads(self.value.bias)
    return self.linear(mixed_BxHxK.reshape(mean_BxHxD.shape[0], -1))


class _Mlp(nn.Module):
  hidden: int
  width: int

  def setup(self):
    self.linear_1 = _Affine(self.hidden, self.width)
    self.linear_2 = _Affine(self.width, self.hidden)

  def __call__(self, x):
    hidden = jax.nn.relu(self.linear_1(x))
    return self.linear_2(hidden), hidden


class _Block(nn.Module):
  num_heads: int
  key_size: int
  width: int
  hidden: int

  def setup(self):
    self.attn = _Attention(self.num_heads, self.key_size, self.width)
    self.mlp = _Mlp(self.hidden, self.width)


class _Stream(NamedTuple):
  """The residual stream as table_TxD + sum of activations_BxTxR @ matrices_RxD, without forming it.

  Attributes:
    table: [T, D], what does not depend on the string: position embeddings and output biases.
    activations: [B, T, R] each.
    matrices: [R, D] each.
  """

  table: Any
  activations: tuple
  matrices: tuple

  def add(self, activation_BxTxR, matrix_RxD, bias_D) -> "_Stream":
    return _Stream(self.table + bias_D, (*self.activations, activation_BxTxR), (*self.matrices, matrix_RxD))

  def read(self, *affines: _Affine) -> list:
    """affine(stream), [B, T, features], for each."""
    kernel = jnp.concatenate([affine.kernel for affine in affines], axis=1)
    bias = jnp.concatenate([affine.bias for affine in affines])
    matrix = jnp.concatenate(self.matrices) @ kernel
    out = jnp.concatenate(self.activations, axis=-1) @ matrix + (self.table @ kernel + bias)
    ends = [sum(affine.features for affine in affines[:i]) for i in range(1, len(affines))]
    return jnp.split(out, ends, axis=-1)

  def at(self, position: int):
    """The stream at one position, [B, D]."""
    return self.table[position] + sum(a[:, position] @ m for a, m in zip(self.activations, self.matrices, strict=True))

  def scores(self, query_BxHxD):
    """Query . stream at every position, [B, H, T]."""
    parts = zip(self.activations, self.matrices, strict=True)
    return query_BxHxD @ self.table.T + sum(jnp.einsum("bhr,btr->bht", query_BxHxD @ m.T, a) for a, m in parts)

  def mean(self, weights_BxHxT):
    """The stream averaged over positions, [B, H, D]."""
    parts = zip(self.activations, self.matrices, strict=True)
    return weights_BxHxT @ self.table + sum(jnp.einsum("bht,btr->bhr", weights_BxHxT, a) @ m for a, m in parts)


class TracrTransformer(nn.Module, Model):
  """A Tracr model: one-hot embeddings, ReLU MLPs, no normalisation, no pad mask.

  Attributes:
    vocab_size: token ids, BOS and pad included.
    max_positions: rows of the position table, BOS included.
    width: D, size of the residual stream.
    num_layers: blocks of attention and MLP.
    num_heads: H; heads narrower than `key_size` are zero-padded, as Tracr does.
    key_size: size of one head's queries, keys and values.
    mlp_hidden_size: F; narrower MLPs are zero-padded.
    answer_channels: the residual directions that the unembedding reads, one for each label; Tracr keeps
      them outside the parameters, so they are not trained.
    causal: whether attention is masked to the past.
  """

  vocab_size: int
  max_positions: int
  width: int
  num_layers: int
  num_heads: int
  key_size: int
  mlp_hidden_size: int
  answer_channels: tuple[int, ...]
  causal: bool = False

  precision = "highest"  # TF32 and bfloat16 break the counts of a compiled program

  def setup(self):
    self.token_embed = nn.Embed(self.vocab_size, self.width)
    self.pos_embed = nn.Embed(self.max_positions, self.width)
    self.blocks = [
      _Block(self.num_heads, self.key_size, self.width, self.mlp_hidden_size) for _ in range(self.num_layers)
    ]

  def __call__(self, tokens_BxT) -> ModelOutput:
    """Everything at every position.

    Args:
      tokens_BxT: int [B, T], BOS first, T up to `max_positions`.

    Returns:
      ModelOutput with logits [B, T, V].
    """
    x_BxTxD = embedded_BxTxD = self._embed(tokens_BxT)
    mask_TxT = self._mask(tokens_BxT.shape[1])
    residuals, attention, hidden = [], [], []
    for block in self.blocks:
      attn = block.attn
      mixed, weights = attn.mix(attn.query(x_BxTxD), attn.key(x_BxTxD), attn.value(x_BxTxD), mask_TxT)
      x_BxTxD = x_BxTxD + attn.linear(mixed)
      out, units = block.mlp(x_BxTxD)
      x_BxTxD = x_BxTxD + out
      residuals.append(x_BxTxD)
      attention.append(weights)
      hidden.append(units)
    return ModelOutput(
      logits=x_BxTxD[..., jnp.array(self.answer_channels)],
      residuals=tuple(residuals),
      attention=tuple(attention),
      hidden=tuple(hidden),
      embedded=embedded_BxTxD,
    )

  def forward(self, params: Params, tokens_BxT: Any) -> Any:
    """See Model."""
    return self.apply({"params": params}, tokens_BxT)

  def answer(self, params: Params, tokens_BxT: Any, position: Position) -> Any:
    """See Model."""
    if isinstance(position, tuple):
      return super().answer(params, tokens_BxT, position)
    return self.apply({"params": params}, tokens_BxT, position, method=TracrTransformer.answer_logits)

  def answer_logits(self, tokens_BxT, position: int) -> Any:
    """`__call__(tokens).logits[:, position]`, [B, V], at about half its cost.

    Args:
      tokens_BxT: int [B, T].
      position: where the answer stands, BOS being 0; static.
    """
    mask_TxT = self._mask(tokens_BxT.shape[1])
    table_TxD = self.pos_embed.embedding[: tokens_BxT.shape[1]]
    stream = _Stream(table_TxD, (self._one_hot(tokens_BxT),), (self.token_embed.embedding,))
    for block in self.blocks[:-1]:
      stream = self._through(block, stream, mask_TxT, multiply_out=block is self.blocks[-2])
    block = self.blocks[-1]
    x_BxD = stream.at(position) + block.attn.attend_from(
      stream, position, None if mask_TxT is None else mask_TxT[position]
    )
    x_BxD = x_BxD + block.mlp(x_BxD)[0]
    return x_BxD[:, jnp.array(self.answer_channels)]

  def _through(self, block: _Block, stream: _Stream, mask_TxT, *, multiply_out: bool) -> _Stream:
    """The stream after a block; with `multiply_out` its MLP's share is formed (see the module's docstring)."""
    attn, mlp = block.attn, block.mlp
    q, k, v = stream.read(attn.query, attn.key, attn.value)
    mixed_BxTxHK = attn.mix(q, k, v, mask_TxT)[0]
    stream = stream.add(mixed_BxTxHK, attn.linear.kernel, attn.linear.bias)
    hidden_BxTxF = jax.nn.relu(stream.read(mlp.linear_1)[0])
    if multiply_out:
      return stream.add(mlp.linear_2(hidden_BxTxF), jnp.eye(self.width), 0.0)
    return stream.add(hidden_BxTxF, mlp.linear_2.kernel, mlp.linear_2.bias)

  def _embed(self, tokens_BxT):
    return self._one_hot(tokens_BxT) @ self.token_embed.embedding + self.pos_embed.embedding[: tokens_BxT.shape[1]]

  def _one_hot(self, tokens_BxT):
    # A product instead of a gather: its transpose is a product too, where a gather's is a scatter.
    return jax.nn.one_hot(tokens_BxT, self.vocab_size, dtype=jnp.float32)

  def _mask(self, length: int):
    return jnp.tril(jnp.ones((length, length), bool)) if self.causal else None
