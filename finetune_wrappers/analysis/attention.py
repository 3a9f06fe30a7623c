"""Attention and activation maps: what a model looks at, and which hidden units answer (Figs. 10, 39-54).

tokens = task.sample_test(jax.random.key(0), 100, 0).tokens
marks = {"pt": tokens == letter_a, "ft": tokens == letter_b}
found = observe(model, params, task, tokens_BxT=tokens, marks=marks, reference=params_before)
found.rows()
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune_wrappers.models.model import Model, needed
from finetune_wrappers.tasks.task import Task
from finetune_wrappers.types import ModelOutput, Params


@dataclasses.dataclass(frozen=True)
class Observed:
  """Where the answer position's attention lands, and how far hidden units moved.

  Attributes:
    mass: by name of the marks and block, counted from 0: the mean share of attention on marked positions, heads
      averaged.
    shift: by block, root-mean-square change of the hidden units against the reference, over the latter's own size;
      blocks whose units the reference leaves at 0 are not in it.
  """

  mass: dict[str, list[float]]
  shift: dict[int, float]

  def rows(self) -> list[dict[str, Any]]:
    """Rows `attention_mass` by `attended` and block, then `activation_shift` by block."""
    masses = [(name, block, share) for name, shares in self.mass.items() for block, share in enumerate(shares)]
    return [
      *({"metric": "attention_mass", "value": v, "block": b, "attended": name, "c_te": 0} for name, b, v in masses),
      *({"metric": "activation_shift", "value": v, "block": b, "c_te": 0} for b, v in self.shift.items()),
    ]


class Observer:
  """Looks at models of one shape on the same strings.

  Args:
    model: gives its attention; its hidden units too if there is a reference.
    task: says where the answer is read.
    tokens_BxT: int [B, T], strings.
    marks: bool [B, T] by name, positions that count as attended.
    reference: parameters that hidden units are compared with.

  Raises:
    InputError: for a model that does not give its attention, or its hidden units.
  """

  def __init__(
    self, model: Model, task: Task, *, tokens_BxT: Any, marks: Mapping[str, Any], reference: Params | None = None
  ):
    self._model, self._task, self._tokens, self._marks = model, task, tokens_BxT, marks
    before = () if reference is None else needed(outputs(model, reference, tokens_BxT), "hidden")
    sizes = [float(np.sqrt(np.mean(np.square(units, dtype=np.float64)))) for units in before]
    self._reference = {block: (before[block], size) for block, size in enumerate(sizes) if size > 0}

  def __call__(self, params: Params) -> Observed:
    """Looks at one model."""
    output, position = outputs(self._model, params, self._tokens), self._task.answer_position
    blocks = range(len(needed(output, "attention")))
    shift = {}
    for block, (before, size) in self._reference.items():
      change = np.square(needed(output, "hidden")[block] - before, dtype=np.float64)
      shift[block] = float(np.sqrt(np.mean(change))) / size
    mass = {
      name: [float(np.mean(attended_mass(output, block, attending=position, attended_BxT=marked))) for block in blocks]
      for name, marked in self._marks.items()
    }
    return Observed(mass, shift)


def observe(
  model: Model,
  params: Params,
  task: Task,
  *,
  tokens_BxT: Any,
  marks: Mapping[str, Any],
  reference: Params | None = None,
) -> Observed:
  """Looks at one model; arguments and errors are those of `Observer`, which is for many models."""
  return Observer(model, task, tokens_BxT=tokens_BxT, marks=marks, reference=reference)(params)


def outputs(model: Model, params: Params, tokens_BxT: Any) -> ModelOutput:
  """Everything that the model gives at every position, as NumPy arrays."""
  with model.numerics():
    return jax.device_get(_forward(model, params, tokens_BxT))


@functools.partial(jax.jit, static_argnums=0)
def _forward(model: Model, params: Params, tokens_BxT: Any) -> ModelOutput:
  return model.forward(params, tokens_BxT)


def attended_mass(output: ModelOutput, block: int, *, attending: Any, attended_BxT: Any) -> Any:
  """Share of attention that lands on marked positions (Figs. 10, 39-45: on the a's, on the b's).

  Args:
    output: of the model.
    block: which block's maps; heads are averaged.
    attending: position that attends; several are averaged too.
    attended_BxT: bool [B, T], positions that count as attended.

  Returns:
    float [B], in [0, 1].
  """
  weights_BxPxT = output.attention[block][:, :, np.atleast_1d(attending), :].mean(axis=1)
  return jnp.where(attended_BxT[:, None], weights_BxPxT, 0.0).sum(axis=-1).mean(axis=-1)
