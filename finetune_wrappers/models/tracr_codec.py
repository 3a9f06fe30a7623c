"""Between symbols and token ids of an assembled model."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from tracr.compiler import compiling
from tracr.compiler.assemble import AssembledTransformerModel

from finetune_wrappers.types import InputError

BOS = compiling.COMPILER_BOS
PAD = compiling.COMPILER_PAD


@dataclasses.dataclass(frozen=True)
class Codec:
  """Between symbols and ids.

  Ids of a vocabulary that mixes numbers and words may differ between processes, as Tracr sorts it; keep the codec
  beside the weights.

  Attributes:
    tokens: symbol of each token id.
    labels: symbol of each label; empty for a numerical program.
    max_seq_len: the longest string, BOS not counted.
    bos: the symbol before every string.
    pad: the symbol after shorter ones.
  """

  tokens: tuple
  labels: tuple
  max_seq_len: int
  bos: str = BOS
  pad: str = PAD

  def encode(self, string: Sequence[Any], *, length: int | None = None) -> np.ndarray:
    """BOS, the string and pads.

    Args:
      string: up to `max_seq_len` symbols.
      length: ids to return; None gives no pads. A pad is an ordinary token to a compiled model.

    Returns:
      int32 [length].

    Raises:
      InputError: for a token outside the vocabulary, or a string or length that the model cannot take.
    """
    for symbol in string:
      if symbol not in self.tokens or symbol in (self.bos, self.pad):
        allowed = " ".join(str(token) for token in self.tokens if token not in (self.bos, self.pad))
        raise InputError(f"string: token {symbol!r} is not in the vocabulary ({allowed})")
    if len(string) > self.max_seq_len:
      raise InputError(f"string: {len(string)} tokens, but the model was compiled for at most {self.max_seq_len}")
    length = len(string) + 1 if length is None else length
    if not len(string) < length <= self.max_seq_len + 1:
      raise InputError(
        f"length: {length} is not allowed for {len(string)} tokens; use {len(string) + 1} to {self.max_seq_len + 1}"
        " (BOS counts)"
      )
    padded = [self.bos, *string] + [self.pad] * (length - 1 - len(string))
    return np.array([self.tokens.index(symbol) for symbol in padded], np.int32)

  def decode(self, ids: Sequence[int] | np.ndarray) -> list[Any]:
    """The symbols of token ids [T], without BOS and pads: `decode(encode(string))` is the string.

    Raises:
      InputError: for an id outside the vocabulary.
    """
    symbols = []
    for i in np.asarray(ids).tolist():
      if not (isinstance(i, int) and 0 <= i < len(self.tokens)):
        raise InputError(f"ids: {i} is not allowed; use 0 to {len(self.tokens) - 1}")
      symbols.append(self.tokens[i])
    return [symbol for symbol in symbols if symbol not in (self.bos, self.pad)]


def codec(assembled: AssembledTransformerModel) -> Codec:
  """The symbols of an assembled model, read off its encoders; whichever names of BOS and pad it was compiled with."""
  encoder: Any = assembled.input_encoder  # Tracr's annotation allows None, its compiler always sets both
  decoder: Any = assembled.output_encoder
  return Codec(
    tokens=tuple(encoder.encoding_map),
    labels=tuple(getattr(decoder, "encoding_map", ())),
    max_seq_len=assembled.params["pos_embed"]["embeddings"].shape[0] - 1,
    bos=encoder.bos_token,
    pad=encoder.pad_token,
  )
