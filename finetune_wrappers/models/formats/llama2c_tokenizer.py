"""tokenizer.bin of llama2.c, from and to the pieces and scores of a sentencepiece model.

The file holds the longest piece's length, then a score and the bytes of each piece, all little-endian; spaces stand for
sentencepiece's U+2581. It holds no rules of normalisation: llama2.c puts a space before a prompt and keeps doubled
spaces, whatever the model was trained with, and its program prints no single byte from 0x80 up.
"""

import os
import pathlib
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune_wrappers.files import write_atomically
from finetune_wrappers.rules import SIZE
from finetune_wrappers.types import InputError

SPACE = "\u2581"
SPECIAL = ("<unk>", "<s>", "</s>")  # ids 0 to 2
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))  # ids from 3 on
WRITTEN = {"<s>": "\n<s>\n", "</s>": "\n</s>\n"}  # no text is taken for these


def save_tokenizer(path: str | os.PathLike, pieces: Sequence[str], scores: Any) -> None:
  """Writes a tokenizer.bin; replaces the file.

  Args:
    path: local.
    pieces: of each id, as sentencepiece gives them (`id_to_piece`), such as `StoryTokenizer.pieces`.
    scores: float [V], `get_score` of each.

  Raises:
    InputError: if the first 259 ids are not unknown, bos, eos and the 256 bytes, as llama2.c takes them to be; if
      there are not as many scores as pieces, or a piece cannot be written.
    OSError: if the file cannot be written.
  """
  scores = np.asarray(scores, np.float32)
  _check(pieces, "pieces")
  if scores.shape != (len(pieces),):
    raise InputError(f"scores: shape {list(scores.shape)} is not [{len(pieces)}], one for each piece")
  texts = []
  for i, piece in enumerate(pieces):
    try:
      texts.append((WRITTEN.get(piece, piece) if i < 3 else piece).replace(SPACE, " ").encode())
    except UnicodeEncodeError as error:
      raise InputError(f"pieces: {piece!r}, id {i}, is no text") from error
    if not texts[-1] or b"\0" in texts[-1]:
      raise InputError(f"pieces: {piece!r}, id {i}, is empty or has a byte 0, which ends a text in C")
  data = [struct.pack("<i", max(map(len, texts)))]
  data += [struct.pack("<fi", score, len(text)) + text for score, text in zip(scores, texts, strict=True)]
  write_atomically(path, b"".join(data))


def load_tokenizer(path: str | os.PathLike, vocab_size: int) -> tuple[tuple[str, ...], np.ndarray]:
  """Reads a tokenizer.bin.

  Args:
    path: of the file.
    vocab_size: V of the model; the file does not hold it.

  Returns:
    (pieces as sentencepiece writes them, scores float32 [V]).

  Raises:
    InputError: if the file is missing, does not hold exactly so many pieces, or numbers them in another order.
  """
  SIZE.check("vocab_size", vocab_size)
  try:
    data = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from error
  pieces, scores, at, longest = [], [], 4, 0
  for i in range(vocab_size):
    score, size = struct.unpack_from("<fi", data, at) if at + 8 <= len(data) else (0.0, -1)
    at += 8 + size
    if size < 0 or at > len(data):
      raise InputError(f"{path}: cut short in piece {i} of {vocab_size}")
    try:
      text = data[at - size : at].decode()
    except UnicodeDecodeError as error:
      raise InputError(f"{path}: piece {i} is no UTF-8") from error
    pieces.append(text.strip("\n") if i < 3 else text.replace(" ", SPACE))
    scores.append(score)
    longest = max(longest, size)
  if at != len(data):
    raise InputError(f"{path}: {len(data) - at} bytes follow piece {vocab_size - 1}; is vocab_size {vocab_size} right?")
  if struct.unpack_from("<i", data)[0] != longest:
    raise InputError(
      f"{path}: longest piece: {struct.unpack_from('<i', data)[0]} bytes in the header, {longest} in fact"
    )
  _check(pieces, str(path))
  return tuple(pieces), np.array(scores, np.float32)


def sentencepiece_model(pieces: Sequence[str], scores: Any) -> bytes:
  """A sentencepiece BPE model that encodes as llama2.c does: a space before a text, doubled spaces kept.

  Args:
    pieces: as from `load_tokenizer`.
    scores: float [V].

  Returns:
    The contents of a model file.

  Raises:
    InputError: as `save_tokenizer`.
  """
  from sentencepiece import sentencepiece_model_pb2

  _check(pieces, "pieces")
  proto = sentencepiece_model_pb2.ModelProto  # pyright: ignore[reportAttributeAccessIssue] - made at import
  kinds, model = proto.SentencePiece, proto()
  for i, (piece, score) in enumerate(zip(pieces, np.asarray(scores).tolist(), strict=True)):
    kind = kinds.NORMAL if i > 258 else kinds.BYTE if i > 2 else kinds.CONTROL if i else kinds.UNKNOWN
    model.pieces.add(piece=piece, score=score, type=kind)
  spec = model.trainer_spec
  spec.model_type, spec.vocab_size, spec.byte_fallback = spec.BPE, len(pieces), True
  normalizer = model.normalizer_spec
  normalizer.name, normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = "identity", True, False
  return model.SerializeToString()


def _check(pieces: Sequence[str], name: str) -> None:
  """Raises InputError unless the first ids are those that llama2.c counts on: it encodes byte b as id b + 3."""
  wanted = (*SPECIAL, *BYTES)
  for i, piece in enumerate(wanted):
    if i >= len(pieces) or pieces[i] != piece:
      found = repr(pieces[i]) if i < len(pieces) else "missing"
      raise InputError(f"{name}: id {i} is {found}, not {piece!r}; llama2.c needs the ids of Llama, no extra symbols")
