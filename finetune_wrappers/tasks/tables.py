"""Tasks whose strings and answers stand in a table, drawn from under jit."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from finetune_wrappers.tasks.strings import StringTask, pick, pick_by_class
from finetune_wrappers.types import Batch, InputError


class Table(NamedTuple):
  """N strings with their answers.

  Attributes:
    strings: [N, L], places in the vocabulary.
    weights: [N], how often the sampler drew each.
    labels_pt: [N], or [N, positions].
    labels_ft: the same.
    carries: bool [N], whether it carries the correlation.
    held_out: bool [N], whether it is kept for testing.
  """

  strings: np.ndarray
  weights: np.ndarray
  labels_pt: np.ndarray
  labels_ft: np.ndarray
  carries: np.ndarray
  held_out: np.ndarray


class TableTask(StringTask):
  """A task that draws from its table; strings held out of it are tested on and never trained on.

  Attributes:
    distinct_answers_in_test: whether the test set at C_Te = 0 leaves out strings whose two answers are the same.
  """

  holds_out = True
  distinct_answers_in_test: bool
  _table: Table
  _programs: dict[str, Any]

  def sample(self, key, batch_size: int, c_tr) -> Batch:
    """See `Task.sample`; a task without a correlation takes a C_Tr of 0 only."""
    self.check_share("c_tr", c_tr)
    table = self._table
    return self._draw(key, batch_size, c_tr, ~table.held_out, ~table.carries)

  def sample_test(self, key, batch_size: int, c_te: int) -> Batch:
    """See `Task.sample_test`; of the strings that are held out."""
    self.check_share("c_te", c_te)
    return self._draw(key, batch_size, float(c_te), self._table.held_out, self._tested())

  def _draw(self, key, batch_size: int, share, part_N: np.ndarray, others_N: np.ndarray) -> Batch:
    table, numbers = self._table, np.arange(len(self._table.strings))
    if self.correlated:
      yes, no = part_N & table.carries, part_N & others_N
      row_B = pick_by_class(key, numbers, table.weights, yes, no, share, batch_size)
    else:
      row_B = pick(key, numbers, table.weights, part_N & others_N, batch_size)
    labels = (jnp.array(labels, jnp.int32)[row_B] for labels in (table.labels_pt, table.labels_ft))
    return Batch(self.encode(jnp.array(table.strings)[row_B]), *labels)

  def _tested(self) -> np.ndarray:
    """Bool [N]: the strings of the test set at C_Te = 0, held out or not."""
    table = self._table
    differ = (table.labels_pt != table.labels_ft).reshape(len(table.strings), -1).any(axis=1)
    return ~table.carries & (differ | (not self.distinct_answers_in_test))

  def check_classes(self) -> None:
    """Raises InputError if no string is left to train or to test on."""
    table = self._table
    needed = {
      "without the correlation to train on": ~table.held_out & ~table.carries,
      "to test on at C_Te = 0": table.held_out & self._tested(),
    }
    if self.correlated:
      needed["with the correlation to train on"] = ~table.held_out & table.carries
      needed["with the correlation to test on"] = table.held_out & table.carries
    for purpose, rows in needed.items():
      if not rows.any():
        raise InputError(
          f"{self.name}: no string is left {purpose}; change the programs, the strings or the correlation"
        )


def places_of(rows: list[tuple], symbols: Sequence) -> np.ndarray:
  """The place of each value among the symbols, [N, values of a row], in the smallest type."""
  places = {symbol: i for i, symbol in enumerate(symbols)}
  found = [[places[value] for value in row] for row in rows]
  return np.array(found, np.min_scalar_type(len(symbols))).reshape(len(rows), -1)


def hold_out(table: Table, share: float, seed: int) -> None:
  """Marks that share of the strings with the correlation and of the others, at least one of each."""
  rng = np.random.default_rng(seed)
  for rows in (np.flatnonzero(table.carries), np.flatnonzero(~table.carries)):
    table.held_out[rng.permutation(rows)[: max(1, round(share * len(rows)))]] = True
