"""A task from one's own functions, with or without RASP behind it."""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune_wrappers.rules import FLAG, SIZE, Checked, ruled
from finetune_wrappers.tasks.strings import NAME, Unprompted
from finetune_wrappers.tasks.task import Categorical, Output
from finetune_wrappers.types import Batch, InputError, require

_PROBED = 256  # strings that are drawn to check the functions and to tell one task from another in keys


class _Given(Unprompted):
  """What is no field, as a function has no place in a key."""

  _strings: Callable[[Any, int, Any], Any]
  _answers: Callable[[Any], tuple[Any, Any]]
  _letters: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class FunctionTask(_Given, Checked):
  """A task from a sampler and the right answers, both jittable; see `Task`.

  Strings to test on are drawn as those to train on, so they may be the same where strings are few; a model or a probe
  may then know them by heart. A `ProgramTask` holds strings out. Two tasks are equal
  only if they are one object; their keys are equal if name, sizes and the first strings are.

  Attributes:
    strings: (key, batch_size, c_tr) -> tokens int [B, T]; a share of c_tr of them, which may be traced, carries the
      spurious correlation and no other does. Without a correlation c_tr is 0.
    answers: tokens -> (labels_pt, labels_ft), int [B], or [B, positions].
    name: of the task, in rows and keys.
    length: T, tokens of a string.
    num_labels: V, labels of the answer.
    answer_position: where the answer is read, 0 being the first token; several as a tuple.
    output: how logits answer; `Categorical()` or `Numerical(values)`.
    correlated: whether `strings` heeds c_tr.
    digest: hash of the first strings and answers, for keys.
  """

  strings: dataclasses.InitVar[Callable[[Any, int, Any], Any]]
  answers: dataclasses.InitVar[Callable[[Any], tuple[Any, Any]]]
  _: dataclasses.KW_ONLY
  name: str = ruled(NAME)
  length: int = ruled(SIZE)
  num_labels: int = ruled(SIZE)
  answer_position: int | tuple[int, ...]
  output: Output = Categorical()
  correlated: bool = ruled(FLAG, False)
  digest: str = dataclasses.field(init=False)

  def __post_init__(self, strings, answers):
    super().__post_init__()
    for name, value in {"_strings": strings, "_answers": answers}.items():
      object.__setattr__(self, name, value)
    draws = [self.sample(jax.random.key(0), _PROBED, share) for share in ([0.0, 1.0] if self.correlated else [0.0])]
    self._check(draws[0])
    object.__setattr__(self, "_letters", tuple(np.unique(draws[0].tokens).tolist()))
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(draws):
      found.update(np.asarray(leaf).astype("<i4").tobytes())
    object.__setattr__(self, "digest", found.hexdigest()[:16])

  def sample(self, key, batch_size: int, c_tr) -> Batch:
    """See `Task.sample`; a task without a correlation takes a C_Tr of 0 only."""
    self.check_share("c_tr", c_tr)
    tokens = self._strings(key, batch_size, c_tr)
    return Batch(_whole("strings", tokens), *(_whole("answers", labels) for labels in self._answers(tokens)))

  def sample_test(self, key, batch_size: int, c_te: int) -> Batch:
    """See `Task.sample_test`."""
    self.check_share("c_te", c_te)
    return self.sample(key, batch_size, float(c_te))

  def text_of(self, tokens_BxT):
    """See `Task.text_of`: every token, and all that the first strings have."""
    return tokens_BxT, self._letters

  def _check(self, batch: Batch) -> None:
    positions = np.shape(self.answer_position)
    if batch.tokens.shape != (_PROBED, self.length):
      raise InputError(f"strings: gives {batch.tokens.shape} for {_PROBED} strings; use ({_PROBED}, {self.length})")
    for labels in (batch.labels_pt, batch.labels_ft):
      if labels.shape != (_PROBED, *positions) or not 0 <= labels.min() <= labels.max() < self.num_labels:
        raise InputError(f"answers: must give labels from 0 to {self.num_labels - 1}, {(_PROBED, *positions)}")
    self.output.check(self.num_labels)
    read = np.atleast_1d(self.answer_position)
    if not 0 <= read.min() <= read.max() < self.length:
      raise InputError(f"answer_position: {self.answer_position} is not allowed; use 0 to {self.length - 1} (length)")


def _whole(field: str, values: Any) -> Any:
  """As int32; a fraction would be cut off."""
  values = jnp.asarray(values)
  fine = jnp.issubdtype(values.dtype, jnp.integer) or values.dtype == bool
  require(fine, field, str(values.dtype), "whole numbers, such as the place of the answer's value in output.values")
  return values.astype(jnp.int32)
