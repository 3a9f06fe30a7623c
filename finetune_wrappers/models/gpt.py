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
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune_wrappers.models.gpt_layers import STD, Block, GPTConfig, Head, drawn, norm, product
from finetune_wrappers.models.model import BlockModel
from finetune_wrappers.types import ModelOutput, Params, require


class GPT(nn.Module, BlockModel):
  """A GPT over token ids.

  Methods raise InputError for strings longer than `config.length` and for a position that is not in the string.

  Attributes:
    config: its sizes.
  """

  config: GPTConfig

  def setup(self):
    config = self.config
    embedding_init = nn.initializers.normal(STD)
    self.token_embed = nn.Embed(config.vocab_size, config.width, embedding_init=embedding_init)
    self.pos_embed = nn.Embed(config.length, config.width, embedding_init=embedding_init)
    self.blocks = [Block(config) for _ in range(config.blocks)]
    self.norm = norm()
    self.head = Head(config.width, config.vocab_size)

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
    return product(one_hot, self.token_embed.embedding, precision="highest") + self.pos_embed.embedding[:length]


def build(config: GPTConfig, seed: int) -> tuple[dict[str, Params], dict[str, Any]]:
  """A GPT before training.

  Weights are minGPT's: normal with standard deviation 0.02, over sqrt(2 * blocks) where a layer adds to the residual
  stream; biases 0 and layer norms the identity. The same numbers everywhere: see `drawn`.

  Args:
    config: sizes.
    seed: 0 or more.

  Returns:
    (arrays, facts): `{"params": ...}`, float32, and JSON values from which `restore` makes the module.
  """
  params = drawn(GPT(config), residual=("linear", "linear_2"), seed=seed)
  return {"params": params}, {"model": dataclasses.asdict(config)}


def restore(facts: dict[str, Any]) -> GPT:
  """The Flax module that `build` described."""
  return GPT(GPTConfig(**facts["model"]))
