"""What training and analyses need of a model, and adapters for models that are not ours.

`Model` is the protocol and, for everything but `forward`, a default. `TracrTransformer`, `GPT` and `Llama` are Flax
modules that are Models too. Any other Flax module goes into `FlaxModel`, any function into `FunctionModel`:

    model = FunctionModel(lambda params, tokens: my_logits(params, tokens))    # logits [B, T, V]
    model = FlaxModel(my_module)                                             # returns logits or a ModelOutput
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from finetune_wrappers.types import InputError, ModelOutput, Params

# A position, or several: answers are then [B, positions, ...].
Position = int | tuple[int, ...]


class Model:
  """A function of parameters and tokens; must be hashable, as jit needs it.

  Attributes:
    precision: of matrix products, as `jax.default_matmul_precision` takes it; None leaves JAX's default, which on
      accelerators may be TF32 or bfloat16.
  """

  precision: Any = None

  def forward(self, params: Params, tokens_BxT: Any) -> ModelOutput:
    """Everything at every position; residual stream, attention and hidden units where the model has them."""
    raise NotImplementedError

  def answer(self, params: Params, tokens_BxT: Any, position: Position) -> Any:
    """Logits where the answer is read, [B, V]; [B, positions, V] for several positions."""
    return _at(_logits(self, params, tokens_BxT, position), position)

  def text(self, params: Params, tokens_BxT: Any) -> Any:
    """Logits of every next token, [B, T, V]."""
    return _logits(self, params, tokens_BxT)

  def stream(self, params: Params, tokens_BxT: Any, position: Position) -> dict[int, Any]:
    """The residual stream at a position by block, [B, D]: 0 before the first block, n after the n-th.

    Raises:
      InputError: if the model does not give its residual stream.
    """
    output = self.forward(params, tokens_BxT)
    found = dict(enumerate(needed(output, "residuals"), start=1))
    if output.embedded is not None:
      found = {0: output.embedded, **found}
    return {block: _at(x_BxTxD, position) for block, x_BxTxD in found.items()}

  def numerics(self) -> contextlib.AbstractContextManager:
    """The context to trace and call the model in: its precision."""
    return jax.default_matmul_precision(self.precision) if self.precision else contextlib.nullcontext()


class BlockModel(Model):
  """A Flax module with own ways to what is needed: `text_logits`, `answer_logits`, `answer_residuals`."""

  apply: Callable[..., Any]  # Flax's

  def forward(self, params: Params, tokens_BxT: Any) -> ModelOutput:
    """See Model."""
    return self.apply({"params": params}, tokens_BxT)

  def answer(self, params: Params, tokens_BxT: Any, position: Position) -> Any:
    """See Model."""
    if isinstance(position, tuple):
      return super().answer(params, tokens_BxT, position)
    return self.apply({"params": params}, tokens_BxT, position, method="answer_logits")

  def text(self, params: Params, tokens_BxT: Any) -> Any:
    """See Model."""
    return self.apply({"params": params}, tokens_BxT, method="text_logits")

  def stream(self, params: Params, tokens_BxT: Any, position: Position) -> dict[int, Any]:
    """See Model."""
    if isinstance(position, tuple):
      return super().stream(params, tokens_BxT, position)
    return dict(enumerate(self.apply({"params": params}, tokens_BxT, position, method="answer_residuals")))


@dataclasses.dataclass(frozen=True)
class FunctionModel(Model):
  """A model given as a function.

  Attributes:
    function: (params, tokens [B, T]) -> logits [B, T, V], or a ModelOutput.
    precision: see `Model`.
  """

  function: Callable[[Params, Any], Any]
  precision: str | None = None

  def forward(self, params: Params, tokens_BxT: Any) -> ModelOutput:
    """See Model."""
    return _as_output(self.function(params, tokens_BxT))


@dataclasses.dataclass(frozen=True)
class FlaxModel(Model):
  """A Flax module as a model.

  Attributes:
    module: its `__call__` takes tokens [B, T] and returns logits [B, T, V], or a ModelOutput.
    precision: see `Model`.
  """

  module: nn.Module
  precision: str | None = None

  def forward(self, params: Params, tokens_BxT: Any) -> ModelOutput:
    """See Model."""
    return _as_output(self.module.apply({"params": params}, tokens_BxT))


def answer_logits(model: Model, params: Params, task: Any, tokens_BxT: Any) -> Any:
  """Logits where a task reads its answers, [B, V]; [B, positions, V] for several positions.

  Raises:
    InputError: if the model gives other shapes, or fewer logits than the task's output reads.
  """
  logits = model.answer(params, tokens_BxT, task.answer_position)
  return fitting(logits, (len(tokens_BxT), *np.shape(task.answer_position)), task)


def fitting(logits: Any, places: tuple[int, ...], task: Any) -> Any:
  """The same logits [..., V], if there are enough at each of these places.

  Raises:
    InputError: if not. XLA would read a label without a logit as another label, or give a loss that is not finite.
  """
  least = task.output.least_logits(task.num_labels)
  if logits.shape[:-1] != places or logits.shape[-1] < least:
    raise InputError(
      f"model: gives logits {list(logits.shape)}; needs [{', '.join(map(str, places))}, V], V at least {least}"
    )
  return logits


def needed(output: ModelOutput, part: str) -> Any:
  """A part of the output that an analysis cannot do without.

  Args:
    output: of the model.
    part: `residuals`, `attention` or `hidden`.

  Raises:
    InputError: if the model does not give it.
  """
  found = getattr(output, part)
  if not found:
    raise InputError(f"model: gives no {part}; return a ModelOutput with {part} from its forward pass")
  return found


def _logits(model: Model, params: Params, tokens_BxT: Any, position: Position | None = None) -> Any:
  """At every position; a model that answers once for a whole string may give position 0 only, where it is read."""
  logits = model.forward(params, tokens_BxT).logits
  batch, length = tokens_BxT.shape
  given = logits.shape[:2] == (batch, length) or (position == 0 and logits.shape[:2] == (batch, 1))
  if len(logits.shape) != 3 or not given:
    needs = f"[{batch}, {length}, V]"
    raise InputError(f"model: gives logits {list(logits.shape)}; needs {needs}, logits at every position of a string")
  return logits


def _as_output(found: Any) -> ModelOutput:
  return found if isinstance(found, ModelOutput) else ModelOutput(found)


def _at(x_BxTxN: Any, position: Position) -> Any:
  return x_BxTxN[:, list(position) if isinstance(position, tuple) else position]
