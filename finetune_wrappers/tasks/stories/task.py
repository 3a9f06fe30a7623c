"""The task of paper part C: stories with instructions, one feature of which training is to delete."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from finetune_wrappers.files import located
from finetune_wrappers.rules import COUNT, FLAG, SEED, SHARE, SIZE, Checked, one_of, ruled
from finetune_wrappers.tasks.stories import protocols
from finetune_wrappers.tasks.stories.batches import Batches
from finetune_wrappers.tasks.stories.cache import TokenCache, build_cache
from finetune_wrappers.tasks.stories.maker import SPLITS, StoryMaker
from finetune_wrappers.tasks.stories.real import StoryFiles
from finetune_wrappers.tasks.stories.records import FEATURES, Record, document, instruction
from finetune_wrappers.tasks.stories.story_files import Report
from finetune_wrappers.tasks.stories.tokenizer import EOS, StoryTokenizer, train_tokenizer
from finetune_wrappers.tasks.task import Categorical
from finetune_wrappers.types import InputError, canonical_json, require

# (done, in all or 0, what)
Progress = Callable[[int, int, str], None]


class _Kept:
  """What is no field: where tokens are kept has no place in a key."""

  _root: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoryTask(_Kept, Checked):
  """Stories of one source, cut into tokens once and kept in a folder.

  The splits: models train on `train`; classifier and probes are chosen or trained on `valid`; all that is reported is
  measured on `test`.

  Attributes:
    source: a StoryMaker, or StoryFiles with the real data.
    stories: of the training split; 0 takes all there are in files.
    held_out: stories of the splits valid and test, each; 0 likewise.
    vocab_size: V, tokens (paper: 8192).
    tokenizer_stories: the tokenizer is trained on so many first ones of what the training split is taken from.
    length: T, tokens that a model sees at once (paper: 1024).
    packed: whether rows are cut out of all stories one after another; else each row is one story.
    feature: that protocols delete (paper: Twist).
    partner: that mix_match renames to it (paper: Foreshadowing).
    renamed: share of the partner's stories that `protocols.apply` renames.
    put_on: share of the stories without the feature's name that get it.
    seed: of the order of instructions and of what protocols draw.
    root: folder where tokens are kept; not part of a key.
  """

  source: StoryMaker | StoryFiles
  stories: int = ruled(COUNT)
  held_out: int = ruled(COUNT)
  vocab_size: int = ruled(SIZE)
  tokenizer_stories: int = ruled(SIZE)
  length: int = ruled(SIZE)
  packed: bool = ruled(FLAG, False)
  feature: str = ruled(one_of(*FEATURES), "Twist")
  partner: str = ruled(one_of(*FEATURES), "Foreshadowing")
  renamed: float = ruled(SHARE, 0.5)
  put_on: float = ruled(SHARE, 0.5)
  seed: int = ruled(SEED, 0)
  root: dataclasses.InitVar[Any] = None
  name = "stories"
  output = Categorical()
  eos = EOS  # ends a story

  def __post_init__(self, root):
    super().__post_init__()
    object.__setattr__(self, "_root", root)
    require(self.partner != self.feature, "partner", self.partner, f"another feature than {self.feature!r}")
    made = isinstance(self.source, StoryMaker)
    for name in ("stories", "held_out"):
      require(
        getattr(self, name) > 0 or not made, name, 0, "1 or more where stories are made, or files.train and files.valid"
      )

  @property
  def num_labels(self) -> int:
    """V: answers are tokens."""
    return self.vocab_size

  @functools.cached_property
  def tokenizer(self) -> StoryTokenizer:
    """Trained on the first stories of the training split, if it is not kept yet."""
    kept = {"source": _told(self.source), "stories": self.tokenizer_stories, "vocab_size": self.vocab_size}
    path = self.folder / f"tokenizer-{_digest(kept)}.model"
    if path.exists():
      found = StoryTokenizer.load(path)
      if found.vocab_size != self.vocab_size:
        raise InputError(
          f"{path}: has {found.vocab_size} tokens, not {self.vocab_size}; move it away to train it again"
        )
      return found
    records = self._records("train", self.tokenizer_stories)[0]
    texts = (document(record, seed=self._order(i)) for i, record in enumerate(records))
    path.parent.mkdir(parents=True, exist_ok=True)
    return train_tokenizer(texts, vocab_size=self.vocab_size, path=path)

  def cache(self, split: str = "train", *, protocol: str = "none", progress: Progress | None = None) -> TokenCache:
    """The tokens of a split after a protocol; made if they are not kept yet."""
    require(split in SPLITS, "split", split, ", ".join(SPLITS))
    caches = self.__dict__.setdefault("_caches", {})
    if (split, protocol) not in caches:
      caches[split, protocol] = self._cache(split, protocol, progress)
    return caches[split, protocol]

  def table(self, split: str, *, protocol: str) -> dict[str, int]:
    """What the protocol did to the split: counts of stories by what was done."""
    return self.cache(split, protocol=protocol).manifest["notes"]["table"]

  def dropped(self, split: str, *, protocol: str) -> list[tuple[int, str, str]]:
    """Malformed records of files that were left out: (how many, reason, file:line of the first) for each reason."""
    return [tuple(row) for row in self.cache(split, protocol=protocol).manifest["notes"]["dropped"]]

  def repeated(self, split: str) -> int:
    """Stories of the files of a held-out split that were left out, as the training files have them too."""
    return self.cache(split).manifest["notes"]["repeated"]

  def batches(self, protocol: str, *, batch_size: int, seed: int) -> Batches:
    """Rows to train on, in an order that the seed decides."""
    made, which = self.__dict__.setdefault("_batches", {}), (protocol, batch_size, seed)
    if which not in made:
      cache = self.cache("train", protocol=protocol)
      made[which] = Batches(cache, length=self.length, batch_size=batch_size, seed=seed, packed=self.packed)
    return made[which]

  def held_out_rows(self, featured: bool, size: int, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """The first stories with the feature or without: tokens uint16 [size, T + 1], lengths int32 [size].

    Raises:
      InputError: if there are not as many.
    """
    cache, chosen = self.cache(split), self.chosen(featured, size, split)
    rows = [cache.document(i)[: self.length + 1] for i in chosen]
    return _padded(rows, self.length + 1, self.tokenizer.pad)

  def prompts(self, size: int, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """Instructions that ask for the feature: tokens uint16 [size, longest], lengths int32 [size]."""
    cache = self.cache(split)
    rows = [cache.document(i)[: int(cache.story_starts[i])] for i in self.chosen(True, size, split)]
    return _padded(rows, max(map(len, rows)), self.tokenizer.pad)

  def stories_of(self, split: str, *, longest: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first stories of a split without their instructions and EOS.

    Returns:
      (tokens uint16 [size, longest], lengths int32 [size], features of each as bits [size]).
    """
    cache = self.cache(split)
    rows, lengths = self.stories_at(split, np.arange(min(size, len(cache))), longest=longest)
    return rows, lengths, np.asarray(cache.masks[: len(rows)])

  def stories_at(self, split: str, places: np.ndarray, *, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """As `stories_of`, without the features, for the stories at these places [N] of a split."""
    cache = self.cache(split)
    rows = [cache.document(i)[int(cache.story_starts[i]) : -1][:longest] for i in places.tolist()]
    return _padded(rows, longest, self.tokenizer.pad)

  def texts_of(self, split: str, *, size: int, instructed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `stories_of`, after BOS and with their instructions if `instructed`, each cut to T tokens."""
    cache, rows = self.cache(split), []
    for i in range(min(size, len(cache))):
      own = cache.document(i)[:-1]
      rows.append((own if instructed else np.r_[own[:1], own[int(cache.story_starts[i]) :]])[: self.length])
    return *_padded(rows, self.length, self.tokenizer.pad), np.asarray(cache.masks[: len(rows)])

  def chosen(self, featured: bool, size: int, split: str) -> np.ndarray:
    """Places of the first `size` stories of a split with the feature or without.

    Raises:
      InputError: if there are not as many.
    """
    has = (np.asarray(self.cache(split).masks) >> FEATURES.index(self.feature)) & 1
    found = np.flatnonzero(has == featured)
    if len(found) < size:
      what = f"{'with' if featured else 'without'} {self.feature}"
      there = f"{len(found)} of the {len(has)} stories of the split {split} are {what}"
      raise InputError(f"held_out: {there}, {size} are needed; hold more stories out, or ask for fewer")
    return found[:size]

  def prepare(self, wanted: list[tuple[str, str]], progress: Progress) -> None:
    """Makes tokenizer and tokens that are not kept yet, for (split, protocol) each."""
    progress(0, 0, "training the tokenizer")
    self.tokenizer  # noqa: B018
    for split, protocol in wanted:
      self.cache(split, protocol=protocol, progress=progress).verify()

  @property
  def folder(self) -> Any:
    """Where tokens are kept."""
    if self._root is None:
      raise InputError("root: missing; give StoryTask a folder to keep tokens in")
    return located(self._root)

  def _order(self, index: int) -> int:
    """Seed of the order of a story's instruction lines."""
    return self.seed * 1_000_003 + index

  def _records(self, split: str, number: int) -> tuple[Iterator[Record], Report]:
    """The first stories of a split, 0 being all of files, and what was left out of these so far as they are read."""
    if isinstance(self.source, StoryFiles):
      return self.source.records(split, number)
    return (self.source.record(split, index) for index in range(number)), Report()

  def _cache(self, split: str, protocol: str, progress: Progress | None) -> TokenCache:
    number = self.stories if split == "train" else self.held_out
    settings = {name: getattr(self, name) for name in ("seed", "feature", "partner", "renamed", "put_on")}
    told = {"source": _told(self.source), "split": split, "stories": number, "protocol": protocol, **settings}
    folder = self.folder / f"{split}-{protocol}-{_digest({**told, 'tokenizer': self.tokenizer.digest})}"
    if folder.exists():
      return TokenCache.open(folder, tokenizer=self.tokenizer, sources=told)
    read, report = self._records(split, number)
    records = protocols.apply(protocol, read, **settings)

    def documents() -> Iterator[tuple[str, str, int]]:
      i = -1
      for i, record in enumerate(records):
        if progress and i % 1000 == 0:
          progress(i, number, f"tokens of {split}, {protocol}")
        yield instruction(record, self._order(i)), record.story, record.mask
      if i < 0:
        field = "stories" if split == "train" else "held_out"
        raise InputError(f"{field}: {protocol} leaves none of {sum(records.table.values())} stories; use more of them")

    def notes() -> dict[str, Any]:
      return {"table": records.table, "dropped": report.rows(), "repeated": report.repeated}

    return build_cache(folder, documents(), self.tokenizer, sources=told, notes=notes)


def _padded(rows: list[np.ndarray], longest: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
  """(tokens uint16 [rows, longest], lengths int32 [rows])."""
  tokens = np.full((len(rows), longest), pad, np.uint16)
  for own, row in zip(tokens, rows, strict=True):
    own[: len(row)] = row
  return tokens, np.array([len(row) for row in rows], np.int32)


def _told(source: Any) -> dict[str, Any]:
  return {"class": type(source).__name__, **dataclasses.asdict(source)}


def _digest(value: Any) -> str:
  return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
