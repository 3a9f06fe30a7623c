"""The few types that every room of the house shares.

Shapes are written into names (`x_BxTxD`) with one glossary:
B batch, T position, D width of the residual stream, V vocabulary or labels of the answer, H heads,
F hidden units of an MLP, C labels of a probe, R runs (lanes of a sweep), K weights or neurons that are cut.
"""

import json
import math
from typing import Any, NamedTuple

Params = Any  # a plain pytree of arrays, as Flax Linen keeps them


class InputError(ValueError):
  """What the user gave cannot be used. The message is one line: the field, and what is allowed."""


def require(ok: bool, field: str, value: Any, allowed: str) -> None:
  """Raises InputError with the field's name and what is allowed, unless ok."""
  if not ok:
    raise InputError(f"{field}: {value!r} is not allowed; use {allowed}")


def require_not_negative(settings: Any, field: str) -> None:
  """Raises InputError unless that attribute is 0 or more and finite."""
  value = getattr(settings, field)
  require(value >= 0 and math.isfinite(value), field, value, "0 or more")


class Batch(NamedTuple):
  """Strings with the right answers for both operands.

  Attributes:
    tokens: int32 [B, T], token ids up to where the answer is read; where a prompt names the operand, O_FT's.
    labels_pt: int32 [B], label r(x, O_PT), the answer for the pretraining operand.
    labels_ft: int32 [B], label r(x, O_FT), the answer for the fine-tuning operand.
  """

  tokens: Any
  labels_pt: Any
  labels_ft: Any


class ModelOutput(NamedTuple):
  """What every model returns; a pytree, so jit, vmap and grad pass through it.

  Attributes:
    logits: [B, T, V], answer logits at every position.
    residuals: tuple, one [B, T, D] for each block, the residual stream after it.
    attention: tuple, one [B, H, T, T] for each block, softmax weights, attending position first.
    hidden: tuple, one [B, T, F] for each block, the MLP's units after the non-linearity.
    embedded: [B, T, D], the residual stream before the first block.

  All but the logits may be missing; an analysis that needs a part then says so.
  """

  logits: Any
  residuals: tuple = ()
  attention: tuple = ()
  hidden: tuple = ()
  embedded: Any = None


def canonical_json(value: Any) -> str:
  """One spelling for one value: sorted keys, no spaces, refuses NaN. What stage keys hash."""
  return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
