"""Stories of the real data set, from files that the user has."""

import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from finetune_wrappers.files import located
from finetune_wrappers.rules import SHARE, Checked, Many, ruled, text
from finetune_wrappers.tasks.stories.records import Record
from finetune_wrappers.tasks.stories.story_files import Records, Report, read_records
from finetune_wrappers.types import InputError, require

PATHS = Many(text("the path of a .txt or .json file", r".+\.(txt|json)"), empty=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoryFiles(Checked):
  """TinyStories-Instruct text files, or JSON shards of the original release (`story_files.read_records`).

  Half of the stories of the validation files are of the split test, the others of the split valid; the text of a story
  decides. One that is in the training files too is left out, so no story is in two splits.

  Attributes:
    train: files of the split train.
    valid: files to hold out.
    bad_share: share of records that may be malformed; they are left out. It is judged from the thousandth record that
      is read on, and at the end of the files.
    digests: SHA-256 of the files, train and valid; what keys know of them, instead of their paths.
  """

  train: dataclasses.InitVar[tuple[str, ...]]
  valid: dataclasses.InitVar[tuple[str, ...]]
  bad_share: float = ruled(SHARE, 0.01)
  digests: tuple[tuple[str, ...], ...] = dataclasses.field(init=False)

  def __post_init__(self, train, valid):
    super().__post_init__()
    given = {"train": PATHS.check("train", train), "valid": PATHS.check("valid", valid)}
    for name, paths in given.items():
      require(bool(paths), name, paths, "one file or more, as the other has some")
    object.__setattr__(self, "_paths", given)
    digests = tuple(tuple(_digest(name, path) for path in paths) for name, paths in given.items())
    require(not set(digests[0]) & set(digests[1]), "valid", valid, "files other than those of train")
    object.__setattr__(self, "digests", digests)

  def records(self, split: str, number: int) -> tuple[Iterator[Record], Report]:
    """The first `number` stories of a split, 0 being all, and what was left out so far as they are read."""
    given: Any = self.__dict__["_paths"]["train" if split == "train" else "valid"]
    paths = [os.path.expanduser(path) for path in given]
    read = read_records(paths, bad_share=self.bad_share)
    found = read if split == "train" else self._held_out(read, split)
    return itertools.islice(found, number or None), read.report

  def _held_out(self, read: Records, split: str) -> Iterator[Record]:
    known = self._trained
    for record in read:
      own = _hash_of(record)
      if own % 2 != (split == "test"):
        continue
      if known[min(np.searchsorted(known, own), len(known) - 1)] == own:
        read.report.repeated += 1
      else:
        yield record

  @functools.cached_property
  def _trained(self) -> np.ndarray:
    """Hashes of all stories of the training files, ascending, uint64: eight bytes a story."""
    read, _ = self.records("train", 0)
    return np.unique(np.fromiter(map(_hash_of, read), np.uint64))


def _hash_of(record: Record) -> np.uint64:
  return np.uint64(int.from_bytes(hashlib.sha256(record.story.encode()).digest()[:8], "big"))


def _digest(field: str, path: str) -> str:
  found = located(path)
  try:
    about = found.stat()
    return _hashed(str(found), about.length, about.mtime)
  except OSError as error:
    raise InputError(f"{field}: {path} cannot be read ({os.strerror(error.errno or 0)})") from error


@functools.lru_cache
def _hashed(path: str, length: int, mtime: float) -> str:
  """SHA-256 of a file; length and mtime so that a file that changed is read again."""
  del length, mtime
  with located(path).open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
