"""What tasks without prompts share: how tokens become ids, how labels are asked for, and exact draws by class."""

from collections.abc import Hashable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from finetune_wrappers.rules import text
from finetune_wrappers.tasks.task import Categorical, Output
from finetune_wrappers.types import Batch, InputError

NAME = text("a name of letters, digits and _", r"\w{1,100}")
BOS, PAD = "compiler_bos", "compiler_pad"  # Tracr's own names


class Unprompted:
  """A task whose strings do not say which operand is asked for; see `Task`.

  Attributes:
    correlated: whether some strings carry a spurious correlation.
    holds_out: see Task.
  """

  name: str
  output: Output = Categorical()
  prompted = False
  correlated = True
  holds_out = False

  def question(self, batch: Batch, target):
    """See `Task.question`.

    `random` is the O_PT answer of the neighbouring string, so labels keep their distribution and say nothing about
    the string.
    """
    answers = jnp.stack([batch.labels_pt, batch.labels_ft, jnp.roll(batch.labels_pt, 1, axis=0)])
    return batch.tokens, answers[target]

  def check_share(self, field: str, share: Any) -> None:
    """Raises InputError for a C_Tr or C_Te above 0 if the task has no correlation; a traced one is let pass."""
    if not (self.correlated or isinstance(share, Tracer) or share == 0):
      raise InputError(f"{field}: {share} is not allowed; use 0, as {self.name} has no correlation")

  def marks(self, batch: Batch) -> dict[str, Any] | None:
    """Bool [B, T] for `pt` and `ft`: the tokens that the answer is about; None if the task does not say."""
    del batch
    return None


class StringTask(Unprompted):
  """Strings of a fixed length between BOS and pads, answered by RASP programs; see `Task`.

  A subclass has `sample`, `sample_test`, `answer_position` and `program(operand, reading=)`, the RASP program that
  `models.tracr_stage` compiles.

  Attributes:
    num_letters: tokens of a string.
    num_pads: pads at the end.
    vocab: the tokens, without BOS and pad.
    labels: the answer that each label stands for.
    mlp_exactness: what its programs are compiled with; None is twice the least that they need.
    tolerance: by how much a compiled numerical program may be off.
  """

  num_letters: int
  num_pads: int = 0
  vocab: Any
  labels: Any
  mlp_exactness: int | None = None
  tolerance = 0.0

  @property
  def max_seq_len(self) -> int:
    """Letters and pads: the length the program is compiled for."""
    return self.num_letters + self.num_pads

  @property
  def length(self) -> int:
    """T: BOS, letters, pads."""
    return 1 + self.max_seq_len

  @property
  def num_labels(self) -> int:
    """V: how many answers there are."""
    return len(self.labels)

  @property
  def symbols(self) -> tuple:
    """The symbol of each token id, BOS and pad among the tokens."""
    return in_order({*self.vocab, BOS, PAD})

  @property
  def token_ids(self) -> np.ndarray:
    """The id of each token of the vocabulary, int32 [tokens]."""
    return np.array([self.symbols.index(token) for token in self.vocab], np.int32)

  def text_of(self, tokens_BxT):
    """See `Task.text_of`: the letters between BOS and pads."""
    return tokens_BxT[:, 1 : 1 + self.num_letters], tuple(self.token_ids.tolist())

  def encode(self, places_BxL):
    """Places in the vocabulary [B, L] to token ids int32 [B, T]."""
    batch = places_BxL.shape[0]
    bos = jnp.full((batch, 1), self.symbols.index(BOS), jnp.int32)
    pad = jnp.full((batch, self.num_pads), self.symbols.index(PAD), jnp.int32)
    return jnp.concatenate([bos, jnp.array(self.token_ids)[places_BxL], pad], axis=1)


def in_order(values: Iterable[Hashable]) -> tuple:
  """Sorted, numbers before words: Tracr's order where all are words, and the same in every process for a mixture.

  Tracr sorts a mixture by values where it can and by text where it cannot, which hangs on the hash seed.
  """
  return tuple(sorted(values, key=lambda value: (isinstance(value, str), value)))  # type: ignore[reportArgumentType]


def pick(key, values, weights: np.ndarray, chosen: np.ndarray, batch_size: int):
  """Values drawn in proportion to their weights among the chosen ones, int32 [B, ...].

  Inverts the cumulative distribution; only values of positive weight are in the table, so no rounding of
  the float32 table can pick another.
  """
  kept = chosen & (weights > 0)
  cumulative = np.cumsum(weights[kept] / weights[kept].sum()).astype(np.float32)
  cumulative[-1] = 1.0
  u_B = jax.random.uniform(key, (batch_size,))
  return jnp.array(values[kept], jnp.int32)[jnp.searchsorted(jnp.array(cumulative), u_B, side="right")]


def pick_by_class(key, values, weights: np.ndarray, carries: np.ndarray, others: np.ndarray, c_tr, batch_size: int):
  """With probability c_tr a value that carries the correlation, else one of the others."""
  key_class, key_yes, key_no = jax.random.split(key, 3)
  yes = pick(key_yes, values, weights, carries, batch_size)
  no = pick(key_no, values, weights, others, batch_size)
  correlated_B = jax.random.uniform(key_class, (batch_size,)) < c_tr
  return jnp.where(correlated_B.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
