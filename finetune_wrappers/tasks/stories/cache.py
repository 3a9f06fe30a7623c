"""Stories as token ids on disk, made once and mapped into memory.

    folder/tokens.bin         uint16, documents end to end, each bos ... eos (see `StoryTokenizer.documents`)
    folder/starts.bin         uint64, place of each document's first token in tokens.bin, and their number at the end
    folder/story_starts.bin   uint32, place of the story's first token within its document
    folder/masks.bin          uint8, features of each document, bit by bit
    folder/manifest.json      sources, tokenizer, counts, and the SHA-256 of each file and of itself

Numbers are little-endian. A cache is written to a folder beside it and renamed when complete, so it is there whole or
not at all; what a killed process left is removed by the next one that builds there.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from finetune_wrappers.rules import COUNT
from finetune_wrappers.tasks.stories.folders import flush, located, publish, temporary_beside, writing
from finetune_wrappers.tasks.stories.tokenizer import StoryTokenizer
from finetune_wrappers.types import InputError, canonical_json, require

SCHEMA = 1
TYPES = {"tokens": "<u2", "starts": "<u8", "story_starts": "<u4", "masks": "u1"}
_MANIFEST = "manifest.json"
_AT_ONCE = 2**20  # characters that are encoded together


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TokenCache:
  """A cache that was opened; the arrays are read-only and mapped into memory.

  Attributes:
    folder: where it is.
    manifest: `schema`, `tokenizer` (digest), `vocab_size`, `sources`, `notes`, `counts` (documents, tokens, bytes of
      text), and `files` (SHA-256 of each).
    tokens: uint16 [tokens].
    starts: uint64 [documents + 1].
    story_starts: uint32 [documents].
    masks: uint8 [documents].
  """

  folder: pathlib.Path
  manifest: dict[str, Any]
  tokens: np.ndarray
  starts: np.ndarray
  story_starts: np.ndarray
  masks: np.ndarray

  @classmethod
  def open(
    cls,
    folder: str | os.PathLike,
    *,
    tokenizer: StoryTokenizer | None = None,
    sources: Mapping[str, Any] | None = None,
  ) -> "TokenCache":
    """Opens a cache. All files are checked, tokens.bin only by its length: see `verify`.

    Args:
      folder: the cache.
      tokenizer: if given, it must be the one that the cache was made with.
      sources: if given, they must be those that the cache was made from.

    Raises:
      InputError: if there is no cache, or it is damaged, or it was made with or from something else.
    """
    folder = located(folder)
    with _reading(folder):
      manifest = _read_manifest(folder)
      arrays = {name: np.asarray(np.memmap(folder / f"{name}.bin", dtype, "r")) for name, dtype in TYPES.items()}
      sizes = [len(array) for array in arrays.values()]
      documents = manifest["counts"]["documents"]
      if sizes != [manifest["counts"]["tokens"], documents + 1, documents, documents]:
        raise _Damaged("a file has another length")
      for name in ("starts", "story_starts", "masks"):
        if _sha256(folder / f"{name}.bin") != manifest["files"][name]:
          raise _Damaged(f"{name}.bin has other contents")
    if tokenizer is not None and tokenizer.digest != manifest["tokenizer"]:
      sizes = f"{manifest['vocab_size']} ids then, {tokenizer.vocab_size} now"
      raise InputError(f"tokenizer: cache {folder} was made with another ({sizes}); use that one, or remove the cache")
    if sources is not None:
      _check_sources(folder, manifest["sources"], json.loads(canonical_json(sources)))
    return cls(folder=folder, manifest=manifest, **arrays)

  def verify(self) -> None:
    """Reads tokens.bin whole and compares its checksum. Raises InputError if it has other contents."""
    with _reading(self.folder):
      if _sha256(self.folder / "tokens.bin") != self.manifest["files"]["tokens"]:
        raise _Damaged("tokens.bin has other contents")

  def __len__(self) -> int:
    """Number of documents."""
    return len(self.masks)

  def document(self, i: int) -> np.ndarray:
    """Token ids of document i, from bos to eos, uint16 [n]. Raises InputError unless 0 <= i < len(self)."""
    require(0 <= i < len(self), "document", i, f"0 to {len(self) - 1}")
    return self.tokens[int(self.starts[i]) : int(self.starts[i + 1])]


def build_cache(
  folder: str | os.PathLike,
  documents: Iterable[tuple[str, str, int]],
  tokenizer: StoryTokenizer,
  *,
  sources: Mapping[str, Any],
  notes: Callable[[], Mapping[str, Any]] = dict,
  progress: Callable[[int, int], None] | None = None,
  threads: int = 1,
) -> TokenCache:
  """Encodes documents into a cache, with flat memory; opens the cache if it is there already.

  Args:
    folder: the cache to make.
    documents: instruction, story and features (0 to 255) of each; read once.
    tokenizer: encodes them.
    sources: JSON values that say what the documents are, such as hashes of files; equal sources mean equal documents.
    notes: called when all documents are read; further JSON values for the manifest, such as how many were left out.
    progress: called now and then with the number of documents and of bytes of text so far.
    threads: of the encoder.

  Raises:
    InputError: if there are no documents, or one is unusable, if the folder cannot be written, or if it holds a
      damaged cache or one that was made with or from something else.
  """
  final, sources = located(folder), json.loads(canonical_json(sources))
  with writing(final):
    there = final.exists() and (not final.is_dir() or any(final.iterdir()))
  if not there:
    with temporary_beside(final) as temporary:
      manifest = _write(temporary, documents, tokenizer, progress, threads)
      manifest |= {"schema": SCHEMA, "sources": sources, "notes": dict(notes())}
      manifest |= {"tokenizer": tokenizer.digest, "vocab_size": tokenizer.vocab_size}
      with writing(final):
        text = json.dumps({"contents": manifest, "sha256": _sha256_of(manifest)}, indent=1, sort_keys=True)
        with (temporary / _MANIFEST).open("wb") as file:
          file.write(text.encode())
          flush(file)
        publish(temporary, final=final)
  return TokenCache.open(final, tokenizer=tokenizer, sources=sources)


class _Damaged(Exception):
  """A cache is truncated, changed or foreign."""


class _Column:
  """A file that is written in parts, with its checksum."""

  def __init__(self, path: pathlib.Path, dtype: str):
    self.file, self.dtype, self.digest = path.open("wb"), dtype, hashlib.sha256()

  def add(self, values: Any) -> None:
    data = np.asarray(values).astype(self.dtype).tobytes()
    self.file.write(data)
    self.digest.update(data)


def _write(
  folder: pathlib.Path,
  documents: Iterable[tuple[str, str, int]],
  tokenizer: StoryTokenizer,
  progress: Callable[[int, int], None] | None,
  threads: int,
) -> dict[str, Any]:
  """Writes the arrays; returns what the manifest says of them."""
  counts, columns = {"documents": 0, "tokens": 0, "bytes": 0}, {}
  with contextlib.ExitStack() as stack:
    for name, dtype in TYPES.items():
      with writing(folder.parent):
        columns[name] = _Column(folder / f"{name}.bin", dtype)
      stack.enter_context(columns[name].file)
    for part in _parts(documents):
      try:
        made = tokenizer.documents([(instruction, story) for instruction, story, _ in part], threads=threads)
      except InputError as error:
        raise InputError(
          f"documents {counts['documents']} to {counts['documents'] + len(part) - 1}: {error}"
        ) from error
      lengths = np.array([len(ids) for ids, _ in made])
      for _, _, mask in part:
        require(COUNT.fits(mask) and mask < 256, "documents: mask", mask, "a whole number from 0 to 255")
      with writing(folder.parent):
        columns["tokens"].add(np.concatenate([ids for ids, _ in made]))
        columns["starts"].add(counts["tokens"] + np.cumsum(lengths) - lengths)
        columns["story_starts"].add([start for _, start in made])
        columns["masks"].add([mask for *_, mask in part])
      counts["documents"] += len(part)
      counts["tokens"] += int(lengths.sum())
      counts["bytes"] += sum(len(text.encode()) for *texts, _ in part for text in texts)
      if progress is not None:
        progress(counts["documents"], counts["bytes"])
    if not counts["documents"]:
      raise InputError("documents: none; a cache needs at least one")
    with writing(folder.parent):
      columns["starts"].add([counts["tokens"]])
      for column in columns.values():
        flush(column.file)
  return {"counts": counts, "files": {name: column.digest.hexdigest() for name, column in columns.items()}}


def _parts(documents: Iterable[tuple[str, str, int]]) -> Iterator[list[tuple[str, str, int]]]:
  part, size = [], 0
  for instruction, story, mask in documents:
    part.append((instruction, story, mask))
    size += len(instruction) + len(story)
    if size >= _AT_ONCE:
      yield part
      part, size = [], 0
  if part:
    yield part


def _read_manifest(folder: pathlib.Path) -> dict[str, Any]:
  try:
    record = json.loads((folder / _MANIFEST).read_bytes())
    contents, told = record["contents"], record["sha256"]
    sha256 = _sha256_of(contents)
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise _Damaged(f"{_MANIFEST} is no manifest") from error
  if told != sha256:
    raise _Damaged(f"{_MANIFEST} has other contents")
  if contents.get("schema") != SCHEMA:
    raise InputError(f"cache: {folder} has schema {contents.get('schema')}, not {SCHEMA}; remove it to build it again")
  return contents


def _check_sources(folder: pathlib.Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
  for name in sorted(then.keys() | now.keys()):
    if name not in then or name not in now or then[name] != now[name]:
      how = "is new" if name not in then else "is missing" if name not in now else "has changed"
      raise InputError(f"sources: {name} {how} since cache {folder} was made; restore it, or remove the cache")


@contextlib.contextmanager
def _reading(folder: pathlib.Path) -> Iterator[None]:
  """Errors of reading as one line; ValueError is what NumPy raises for an empty file or half a number."""
  try:
    yield
  except FileNotFoundError as error:
    if not folder.exists():
      raise InputError(f"cache: {folder} is not there; build it first") from error
    why = f"{pathlib.Path(error.filename).name} is missing"
  except OSError as error:
    raise InputError(f"cache: {folder} cannot be read ({os.strerror(error.errno or 0)})") from error
  except InputError:
    raise
  except ValueError:
    why = "a file is cut short"
  except _Damaged as error:
    why = str(error)
  else:
    return
  raise InputError(f"cache: {folder} is damaged ({why}); remove it to build it again")


def _sha256(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of(value: Any) -> str:
  return hashlib.sha256(canonical_json(value).encode()).hexdigest()
