"""Tokenizer of the stories (paper part C): sentencepiece BPE with byte fallback, split digits, no normalisation.

Every text in UTF-8 comes back as it was. sentencepiece alone loses the character U+2581, by which it marks spaces, so
that one is written as its bytes.

Ids, as in Llama and llama2.c: 0 unknown (never used), 1 bos, 2 eos, byte b at b + 3, pieces above. No piece contains a
newline, so a newline is always the one id 13, and text may be cut behind it without changing its tokens.
"""

import hashlib
import io
import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import sentencepiece

from finetune_wrappers import rules
from finetune_wrappers.files import write_atomically
from finetune_wrappers.types import InputError, require

BOS, EOS, BYTES = 1, 2, 3
NEWLINE = BYTES + ord("\n")
VOCAB_SIZE = rules.whole(BYTES + 256 + 1, 2**16)
_SPACE = "\u2581"
_SPACE_IDS = [BYTES + byte for byte in _SPACE.encode()]
# sentencepiece strips or refuses texts with these; a piece must not contain them.
_BREAKS = re.compile("[\0\t\r\n\u2581\u2585]+")
_PROBE = "a  b \u2581 \ufb01\t12\r\n \u3000A\u030a\u2028 "
_THREADS = 4  # written into the file, so it must not depend on the machine; the pieces do not depend on it


class StoryTokenizer:
  """A trained tokenizer.

  Args:
    proto: contents of a sentencepiece model file. Nothing in it is executed.
    name: of the file, in messages.

  Attributes:
    proto: as given.
    pieces: text of each id.
    scores: float32 [V], the merge with the highest score comes first.
    digest: 16 hex digits of the SHA-256 of the pieces and of how a probe is encoded. Files that differ in nothing else
      have the same digest: sentencepiece also writes its number of threads into a file.
    exact: whether doubled spaces and rare characters survive; true of every tokenizer by `train_tokenizer`. A file by
      other programs may drop doubled spaces, as its author's did in training.

  Raises:
    InputError: if it is no such model, or its ids are not those of Llama.
  """

  bos, eos = BOS, EOS
  # Padding is never a target. A padded row then looks like a generated one, where eos fills up after the end. (The
  # library's own `pad_id()` is -1, which as an index means the last row.)
  pad = EOS

  def __init__(self, proto: bytes, *, name: str = "tokenizer"):
    try:
      self._model = sentencepiece.SentencePieceProcessor()
      self._model.load_from_serialized_proto(
        proto or b"none"
      )  # nothing at all would be taken for a model without pieces
      size = self._model.get_piece_size()
      self.pieces = tuple(self._model.id_to_piece(i) for i in range(size))
    except (RuntimeError, UnicodeDecodeError) as error:
      raise InputError(f"tokenizer: {name} is no sentencepiece model, or cut short") from error
    self.proto = proto
    self.scores = np.array([self._model.get_score(i) for i in range(size)], np.float32)
    self._check(name)
    self._bytes = [self._bytes_of(i) for i in range(size)]
    # Most models put a space before a text, which `decode` takes away again.
    self._adds_space = self.pieces[self._model.encode("a")[0]].startswith(_SPACE)
    kinds = [
      f"{self._model.is_control(i):d}{self._model.is_byte(i):d}{self._model.is_unused(i):d}" for i in range(size)
    ]
    probe = self.encode(_PROBE)
    told = repr([self.pieces, kinds, self.scores.argsort(kind="stable").tolist(), probe.tolist()])
    self.digest = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    self.exact = self.decode(probe) == _PROBE

  @classmethod
  def load(cls, path: str | os.PathLike) -> "StoryTokenizer":
    """Reads a model file. Raises InputError if it cannot be read or is no such model."""
    try:
      proto = pathlib.Path(path).read_bytes()
    except OSError as error:
      raise InputError(f"tokenizer: {path} cannot be read ({os.strerror(error.errno or 0)})") from error
    return cls(proto, name=str(path))

  @classmethod
  def from_bytes(cls, proto: bytes) -> "StoryTokenizer":
    """From the contents of a model file."""
    return cls(proto)

  @property
  def vocab_size(self) -> int:
    """V: number of ids."""
    return len(self.pieces)

  def encode(self, text: str) -> np.ndarray:
    """Token ids of a text, uint16 [n], without bos and eos. See `encode_many`."""
    return self.encode_many([text])[0]

  def encode_many(self, texts: Sequence[str], *, threads: int = 1) -> list[np.ndarray]:
    """Token ids of texts, each uint16 [n], without bos and eos.

    Raises:
      InputError: for a text with half a surrogate pair, which UTF-8 cannot hold.
    """
    for text in texts:
      _check_text(text)
    found = self._model.encode(list(texts), num_threads=threads)
    for i, text in enumerate(texts):
      if _SPACE in text:
        found[i] = self._with_marks(text)
    return [np.array(ids, np.uint16) for ids in found]

  def documents(self, pairs: Sequence[tuple[str, str]], *, threads: int = 1) -> list[tuple[np.ndarray, int]]:
    """Whole documents, as a model is trained on them.

    Args:
      pairs: instruction and story; an empty instruction has no line of its own.
      threads: of the encoder.

    Returns:
      For each, (ids uint16 [n], start): bos, instruction, newline, story, eos; `start` is the place of the story's
      first token. The tokens before it are `prompt(instruction)`.
    """
    texts = [_before(instruction) + story for instruction, story in pairs]
    made = []
    for (instruction, _), ids in zip(pairs, self.encode_many(texts, threads=threads), strict=True):
      start = 0
      if instruction:
        start = int(np.flatnonzero(ids == NEWLINE)[instruction.count("\n")]) + 1
      made.append((np.concatenate([[BOS], ids, [EOS]]).astype(np.uint16), 1 + start))
    return made

  def prompt(self, instruction: str) -> np.ndarray:
    """What stands before the story in a document: bos, instruction, newline; uint16 [n]."""
    return np.concatenate([[BOS], self.encode(_before(instruction))]).astype(np.uint16)

  def decode(self, ids: Any, *, continues: bool = False) -> str:
    """Text of token ids; `decode(encode(text)) == text`.

    bos, eos and unknown give no text. Bytes that are no UTF-8, which a model may write, become U+FFFD.

    Args:
      ids: whole numbers [n].
      continues: whether other tokens stand before them, such as a story's behind its prompt. Otherwise the space that
        `encode` puts before a text is taken away.

    Raises:
      InputError: for an id that is not in the vocabulary, such as -1.
    """
    ids = np.asarray(ids)
    if ids.size == 0:
      return ""
    fine = ids.ndim == 1 and ids.dtype.kind in "iu" and ids.min() >= 0 and ids.max() < self.vocab_size
    require(fine, "ids", ids.tolist(), f"one row of whole numbers from 0 to {self.vocab_size - 1}")
    kept = [i for i in ids.tolist() if i >= BYTES]
    data = b"".join(self._bytes[i] for i in kept)
    if self._adds_space and not continues and kept and self.pieces[kept[0]].startswith(_SPACE):
      data = data[1:]
    return data.decode("utf-8", "replace")

  def _with_marks(self, text: str) -> list[int]:
    first, *rest = text.split(_SPACE)
    ids, newline = self._model.encode(first), self._model.encode("\n")
    for part in rest:
      # Behind a newline no space is put before the text.
      ids += _SPACE_IDS + self._model.encode("\n" + part)[len(newline) :]
    return ids

  def _bytes_of(self, i: int) -> bytes:
    if i < BYTES:
      return b""
    return bytes([i - BYTES]) if self._model.is_byte(i) else self.pieces[i].replace(_SPACE, " ").encode()

  def _check(self, name: str) -> None:
    """Raises InputError unless the ids are Llama's and newlines stay by themselves."""
    model, size = self._model, len(self.pieces)
    VOCAB_SIZE.check(f"tokenizer: pieces of {name}", size)
    special = (model.unk_id(), model.bos_id(), model.eos_id())
    require(special == (0, BOS, EOS), f"tokenizer: unk, bos and eos of {name}", special, "(0, 1, 2)")
    wanted = [f"<0x{byte:02X}>" for byte in range(256)]
    if list(self.pieces[BYTES : BYTES + 256]) != wanted or not all(map(model.is_byte, range(BYTES, BYTES + 256))):
      raise InputError(f"tokenizer: {name} does not have byte b at id b + 3; train with byte_fallback and no symbols")
    if any("\n" in piece for piece in self.pieces) or model.encode("a\n\nb").count(NEWLINE) != 2:
      raise InputError(f"tokenizer: {name} changes or joins newlines; use one with identity normalisation")


def train_tokenizer(
  texts: Iterable[str], *, vocab_size: int, path: str | os.PathLike | None = None, most_bytes: int = 2**26
) -> StoryTokenizer:
  """Trains a tokenizer; equal texts give equal bytes.

  Args:
    texts: any strings, read once and only as far as needed. No piece crosses a line.
    vocab_size: V, ids in all: 3, 256 bytes, and pieces (paper: 8192). Every character of the texts gets an id.
    path: file to write; None writes none.
    most_bytes: reading stops behind the text with which this much UTF-8 is reached.

  Raises:
    InputError: if there is no text, or too little or too varied text for the vocabulary.
  """
  vocab_size = VOCAB_SIZE.check("vocab_size", vocab_size)
  lines = _lines(texts, most_bytes)
  first = next(lines, None)
  if first is None:
    raise InputError("texts: empty; a tokenizer needs text to train on")
  found, failed = io.BytesIO(), []

  def kept() -> Iterator[str]:
    try:
      yield from lines
    except BaseException as error:
      failed.append(error)
      raise

  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=itertools.chain([first], kept()), model_writer=found, model_type="bpe", vocab_size=vocab_size,
      byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
      character_coverage=1.0, max_sentence_length=2**30, num_threads=_THREADS, minloglevel=2,
    )  # fmt: skip
  except RuntimeError as error:
    if failed:  # the trainer makes a RuntimeError of it, with its stack in the text
      raise failed[0] from None
    raise InputError(_why(str(error), vocab_size)) from error
  tokenizer = StoryTokenizer(found.getvalue())
  if path is not None:
    write_atomically(path, tokenizer.proto)
  return tokenizer


def _lines(texts: Iterable[str], most_bytes: int) -> Iterator[str]:
  read = 0
  for text in texts:
    _check_text(text)
    yield from filter(str.strip, _BREAKS.split(text))
    read += len(text.encode())
    if read >= most_bytes:
      return


def _why(message: str, vocab_size: int) -> str:
  """One line from the trainer's error."""
  if most := re.search(r"too high.*<= (\d+)", message):
    return f"vocab_size: {vocab_size} is more than the texts give; use at most {most.group(1)}, or more text"
  if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
    return f"vocab_size: {vocab_size} has no room for each character; use at least {least.group(1)}"
  return f"texts: no tokenizer can be trained on them ({' '.join(message.split())})"


def _before(instruction: str) -> str:
  return f"{instruction}\n" if instruction else ""


def _check_text(text: str) -> None:
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise InputError(f"text: {rules.shown(text)} has half a surrogate pair at {error.start}; remove it") from error
