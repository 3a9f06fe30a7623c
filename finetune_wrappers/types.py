"""Types that every part of the package shares.

Shapes are written into names (`x_BxTxD`) with one glossary:
B batch, T position, D width of the residual stream, V vocabulary or labels of the answer, H heads,
F hidden units of an MLP, C labels of a probe, R runs (lanes of a sweep), K weights or neurons that are cut.
"""

import json
from typing import Any, NamedTuple

Params = Any  # a plain pytree of arrays, as Flax Linen keeps them


ROW_TEXTS = ("experiment", "setting", "task", "stage", "metric")
ROW_COUNTS = ("step", "seed")
REQUIRED = (*ROW_TEXTS, *ROW_COUNTS, "value")  # what every row has
# Further fields that metrics, analyses and settings give to rows; a swept value of such a name would be overwritten.
ROW_FIELDS = (
  "attended", "block", "c_te", "diverged", "done", "family", "k", "label", "model", "operand", "pretraining_steps",
  "prior", "rank", "reading", "reads", "scope", "score", "unit", "weight",
)  # fmt: skip


class InputError(ValueError):
  """Unusable input from the user. The message is one line: the field, its value and what is allowed."""


def require(ok: bool, field: str, value: Any, allowed: str) -> None:
  """Raises InputError naming the field, its value and what is allowed, unless `ok`."""
  if not ok:
    raise InputError(f"{field}: {value!r} is not allowed; use {allowed}")


class Batch(NamedTuple):
  """Token strings with the correct labels for both operands.

  Attributes:
    tokens: int32 [B, T], token ids up to the position of the answer; a prompt that names an operand names O_FT.
    labels_pt: int32 [B], r(x, O_PT), the label for the pretraining operand.
    labels_ft: int32 [B], r(x, O_FT), the label for the fine-tuning operand.
  """

  tokens: Any
  labels_pt: Any
  labels_ft: Any


class ModelOutput(NamedTuple):
  """Output of every model: a pytree, so it works under jit, vmap and grad.

  Attributes:
    logits: [B, T, V], answer logits at every position.
    residuals: tuple, one [B, T, D] a block, the residual stream after it.
    attention: tuple, one [B, H, T, T] a block, softmax weights; the attending position comes first.
    hidden: tuple, one [B, T, F] a block, the MLP's activations after the non-linearity.
    embedded: [B, T, D], the residual stream before the first block.

  Only the logits are required. An analysis that needs another part raises an error if it is missing.
  """

  logits: Any
  residuals: tuple = ()
  attention: tuple = ()
  hidden: tuple = ()
  embedded: Any = None


def canonical_json(value: Any) -> str:
  """JSON with sorted keys and no spaces: equal values give equal text, which stage keys hash. Refuses NaN."""
  return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
