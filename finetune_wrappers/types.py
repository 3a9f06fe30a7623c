"""The few types that every room of the house shares.

Shapes are written into names (`x_BxTxD`) with one glossary:
B batch, T position, D width of the residual stream, V vocabulary or classes of the answer, H heads,
F hidden units of an MLP, C classes, R runs (lanes of a sweep), K weights or neurons that are cut.
"""

import json
from typing import Any, NamedTuple

Params = Any  # a plain pytree of arrays, as Flax Linen keeps them


class InputError(ValueError):
  """What the user gave cannot be used. The message is one line: the field, and what is allowed."""


class Batch(NamedTuple):
  """Strings with the right answers for both operands.

  Attributes:
    tokens: int32 [B, T], token ids, BOS first, pads last.
    target_pt: int32 [B], class of r(x, O_PT), the answer for the pretraining operand.
    target_ft: int32 [B], class of r(x, O_FT), the answer for the fine-tuning operand.
  """

  tokens: Any
  target_pt: Any
  target_ft: Any


class ModelOutput(NamedTuple):
  """What every model returns; a pytree, so jit, vmap and grad pass through it.

  Attributes:
    logits: [B, T, V], answer logits at every position.
    residuals: tuple, one [B, T, D] for each block, the residual stream after it.
    attention: tuple, one [B, H, T, T] for each block, softmax weights, attending position first.
    hidden: tuple, one [B, T, F] for each block, the MLP's units after the non-linearity.
  """

  logits: Any
  residuals: tuple
  attention: tuple
  hidden: tuple


def canonical_json(value: Any) -> str:
  """One spelling for one value: sorted keys, no spaces, refuses NaN. What stage keys hash."""
  return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
