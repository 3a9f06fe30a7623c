"""Rows of tokens for training, in an order that hangs on nothing but the seed.

Row number r of a run is row r % n of epoch r // n, n being the rows of an epoch, and step s reads rows s * B to
(s + 1) * B - 1. So each row comes exactly once an epoch, no row is dropped at its end, and a resumed run asks for a
step and gets its very batch. grain gives each epoch its own order.
"""

from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np

from finetune_wrappers import rules
from finetune_wrappers.tasks.stories.cache import TokenCache
from finetune_wrappers.tasks.stories.tokenizer import EOS
from finetune_wrappers.types import InputError, require


class StoryRows(NamedTuple):
  """Rows of a batch.

  Attributes:
    tokens: uint16 [B, T + 1]; inputs are all but the last, targets all but the first.
    lengths: int32 [B], real tokens in each row, the rest is padding (eos). Targets at places below length - 1 count.
  """

  tokens: np.ndarray
  lengths: np.ndarray


class Batches:
  """Batches of a cache, random access by step.

  Args:
    cache: the documents.
    length: T, tokens that a model reads at once; a row has one more.
    batch_size: B.
    seed: of the order.
    packed: if true, a row is a window of the chosen documents end to end, in the cache's order. A window begins with
      the last token of the one before, so that each token is a target once an epoch, except the very first; the last
      window is padded. If false, a row is one document, cut behind its first T + 1 tokens.
    chosen: places of documents in the cache, each once; None takes all.

  Attributes:
    rows: a grain MapDataset of (tokens [T + 1], length), endless; `rows.batch(B)[step]` is `at(step)`.
    epoch: n, number of rows of an epoch.
    cut: number of documents that a row does not hold whole; 0 if packed.

  Raises:
    InputError: if an argument is out of its range.
  """

  def __init__(
    self,
    cache: TokenCache,
    *,
    length: int,
    batch_size: int,
    seed: int,
    packed: bool,
    chosen: Sequence[int] | np.ndarray | None = None,
  ):
    length = rules.SIZE.check("length", length)
    self.batch_size = rules.SIZE.check("batch_size", batch_size)
    seed = rules.SEED.check("seed", seed)
    documents = _documents(cache, chosen)
    if rules.FLAG.check("packed", packed):
      source = _Windows(cache, documents, length)
      self.cut = 0
    else:
      source = _Documents(cache, documents, length)
      self.cut = int(((cache.starts[documents + 1] - cache.starts[documents]) > length + 1).sum())
    self.epoch = len(source)
    # `shuffle(seed=s)` gives epoch e the seed s + e, so runs of neighbouring seeds would share their epochs; the seed
    # that `.seed` derives lies far from its neighbour's.
    self.rows = grain.MapDataset.range(self.epoch).seed(seed).shuffle().map(source.row).repeat()

  def at(self, step: int, *, part: tuple[int, int] = (0, 1)) -> StoryRows:
    """The batch of a step, or one host's part of it.

    Args:
      step: 0 or more.
      part: (i, n) gives rows i * B // n to (i + 1) * B // n - 1: with n hosts, each asks for its own i, and the parts
        make up the whole batch.

    Raises:
      InputError: for a step or part that there is not.
    """
    step = rules.whole(0, rules.INT32).check("step", step)
    i, n = part
    require(0 <= i < n <= self.batch_size, "part", part, f"(i, n) with 0 <= i < n <= batch_size ({self.batch_size})")
    first = step * self.batch_size
    places = range(first + i * self.batch_size // n, first + (i + 1) * self.batch_size // n)
    tokens, lengths = zip(*(self.rows[place] for place in places), strict=True)
    return StoryRows(np.stack(tokens), np.array(lengths, np.int32))


class _Documents:
  """A row for each document."""

  def __init__(self, cache: TokenCache, documents: np.ndarray, length: int):
    self.cache, self.documents, self.length = cache, documents, length

  def __len__(self) -> int:
    return len(self.documents)

  def row(self, i: int) -> tuple[np.ndarray, np.int32]:
    tokens = self.cache.document(int(self.documents[i]))[: self.length + 1]
    row = np.full(self.length + 1, EOS, np.uint16)
    row[: len(tokens)] = tokens
    return row, np.int32(len(tokens))


class _Windows:
  """A row for every T tokens of the documents end to end."""

  def __init__(self, cache: TokenCache, documents: np.ndarray, length: int):
    self.cache, self.documents, self.length = cache, documents, length
    sizes = cache.starts[documents + 1] - cache.starts[documents]
    self.ends = np.cumsum(sizes.astype(np.int64))  # of each document in the stream

  def __len__(self) -> int:
    return -(-(int(self.ends[-1]) - 1) // self.length)

  def row(self, i: int) -> tuple[np.ndarray, np.int32]:
    place, stop = i * self.length, min((i + 1) * self.length + 1, int(self.ends[-1]))
    row, size = np.full(self.length + 1, EOS, np.uint16), stop - place
    filled, k = 0, int(np.searchsorted(self.ends, place, side="right"))
    while filled < size:
      rest = int(self.ends[k]) - place - filled  # of document k
      tokens = self.cache.document(int(self.documents[k]))[-rest:][: size - filled]
      row[filled : filled + len(tokens)] = tokens
      filled, k = filled + len(tokens), k + 1
    return row, np.int32(size)


def _documents(cache: TokenCache, chosen: Sequence[int] | np.ndarray | None) -> np.ndarray:
  """Places of documents, int64."""
  if chosen is None:
    return np.arange(len(cache))
  places = np.asarray(chosen)
  if not places.size:
    raise InputError("chosen: empty; choose at least one document")
  fine = places.ndim == 1 and places.dtype.kind in "iu" and places.min() >= 0 and places.max() < len(cache)
  require(fine, "chosen", rules.shown(chosen), f"a list of whole numbers from 0 to {len(cache) - 1}")
  require(len(np.unique(places)) == len(places), "chosen", rules.shown(chosen), "each document once")
  return places.astype(np.int64)
