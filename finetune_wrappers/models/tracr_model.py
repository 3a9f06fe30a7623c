"""The transformer that Tracr programs are ported into: bidirectional, no normalisation, Flax Linen.

Half the cost of a training step is never paid, and exactly so (the same function, other roundings):

* Block 0 sees embeddings, a sum of one of V token rows and one of T position rows. Its queries, keys and
  values are computed for those V + T rows, not for all B T positions.
* The answer is read at one position. In the last block only that position's query and MLP count, and
  since attention is linear in its values, keys and values need not be formed at all: the query is carried
  back through the key matrix, and the attended mean of the residual stream forward through the value
  matrix.

`__call__` computes everything and returns a ModelOutput; `answer_logits` uses both savings.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune_wrappers.types import ModelOutput

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

  def attend(self, q_BxTxHK, k_BxTxHK, v_BxTxHK, mask_TxT):
    q, k, v = self.heads(q_BxTxHK), self.heads(k_BxTxHK), self.heads(v_BxTxHK)
    scores_BxHxTxT = jnp.einsum("bthk,bshk->bhts", q, k) / jnp.sqrt(float(self.key_size))
    if mask_TxT is not None:
      scores_BxHxTxT = jnp.where(mask_TxT, scores_BxHxTxT, _MASKED)
    weights_BxHxTxT = jax.nn.softmax(scores_BxHxTxT)
    mixed = jnp.einsum("bhts,bshk->bthk", weights_BxHxTxT, v)
    return self.linear(mixed.reshape(*q_BxTxHK.shape)), weights_BxHxTxT

  def attend_from(self, x_BxTxD, position, mask_T):
    """The same output at one position, [B, D], without forming any key or value."""
    q_BxHxK = self.heads(self.query(x_BxTxD[:, position]))
    key_DxHxK = self.heads(self.key.kernel)
    # A key's bias adds the same number to every score of a query: the softmax does not see it.
    query_BxHxD = jnp.einsum("bhk,dhk->bhd", q_BxHxK, key_DxHxK)
    scores_BxHxT = jnp.einsum("bhd,btd->bht", query_BxHxD, x_BxTxD) / jnp.sqrt(float(self.key_size))
    if mask_T is not None:
      scores_BxHxT = jnp.where(mask_T, scores_BxHxT, _MASKED)
    mean_BxHxD = jnp.einsum("bht,btd->bhd", jax.nn.softmax(scores_BxHxT), x_BxTxD)
    value_DxHxK = self.heads(self.value.kernel)
    mixed_BxHxK = jnp.einsum("bhd,dhk->bhk", mean_BxHxD, value_DxHxK) + self.heads(self.value.bias)
    return self.linear(mixed_BxHxK.reshape(x_BxTxD.shape[0], -1))


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


class TracrTransformer(nn.Module):
  """A Tracr model: one-hot embeddings, ReLU MLPs, no normalisation, no pad mask.

  Attributes:
    vocab_size: token ids, BOS and pad included.
    max_positions: rows of the position table, BOS included.
    width: D, size of the residual stream.
    num_layers: blocks of attention and MLP.
    num_heads: H; heads narrower than `key_size` are zero-padded, as Tracr does.
    key_size: size of one head's queries, keys and values.
    mlp_hidden_size: F; narrower MLPs are zero-padded.
    answer_channels: the residual directions that the unembedding reads, one for each class; Tracr keeps
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
    x_BxTxD = self._embed(tokens_BxT)
    mask_TxT = self._mask(tokens_BxT.shape[1])
    residuals, attention, hidden = [], [], []
    for block in self.blocks:
      attn = block.attn
      out, weights = attn.attend(attn.query(x_BxTxD), attn.key(x_BxTxD), attn.value(x_BxTxD), mask_TxT)
      x_BxTxD = x_BxTxD + out
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
    )

  def answer_logits(self, tokens_BxT, position: int) -> Any:
    """`__call__(tokens).logits[:, position]`, [B, V], at about half its cost.

    Args:
      tokens_BxT: int [B, T].
      position: where the answer stands, BOS being 0; static.
    """
    length = tokens_BxT.shape[1]
    mask_TxT = self._mask(length)
    x_BxTxD = self._embed(tokens_BxT)
    for index, block in enumerate(self.blocks):
      attn = block.attn
      if index == self.num_layers - 1:
        mask_T = None if mask_TxT is None else mask_TxT[position]
        x_BxD = x_BxTxD[:, position] + attn.attend_from(x_BxTxD, position, mask_T)
        x_BxD = x_BxD + block.mlp(x_BxD)[0]
        return x_BxD[:, jnp.array(self.answer_channels)]
      if index == 0:
        q, k, v = (self._from_embedding(f, tokens_BxT) for f in (attn.query, attn.key, attn.value))
      else:
        q, k, v = attn.query(x_BxTxD), attn.key(x_BxTxD), attn.value(x_BxTxD)
      x_BxTxD = x_BxTxD + attn.attend(q, k, v, mask_TxT)[0]
      x_BxTxD = x_BxTxD + block.mlp(x_BxTxD)[0]
    raise ValueError("num_layers: 0 is not allowed; use 1 or more")

  def _embed(self, tokens_BxT):
    # A one-hot product instead of a gather: its transpose is a product too, where a gather's is a scatter.
    one_hot = jax.nn.one_hot(tokens_BxT, self.vocab_size, dtype=jnp.float32)
    return one_hot @ self.token_embed.embedding + self.pos_embed.embedding[: tokens_BxT.shape[1]]

  def _from_embedding(self, affine: _Affine, tokens_BxT):
    one_hot = jax.nn.one_hot(tokens_BxT, self.vocab_size, dtype=jnp.float32)
    by_token = self.token_embed.embedding @ affine.kernel
    by_position = affine(self.pos_embed.embedding[: tokens_BxT.shape[1]])
    return one_hot @ by_token + by_position

  def _mask(self, length: int):
    return jnp.tril(jnp.ones((length, length), bool)) if self.causal else None
