"""A JSON list of any size as a stream: memory holds one item and a chunk of the file."""

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any, NoReturn

from finetune_wrappers.rules import shown
from finetune_wrappers.types import InputError

_CHUNK = 2**16
LONGEST = 2**20  # characters of an item; a record of the real files has at most some 10^4


def stream_list(file: IO[bytes], *, name: str) -> Iterator[tuple[str, Any]]:
  """The items of a JSON list, one after the other: (place, value).

  A byte that is no UTF-8 becomes a lone surrogate, so that it spoils its own item and no other.

  Args:
    file: opened for bytes.
    name: of the file, in places (`name:line (item n)`) and messages.

  Raises:
    InputError: with the place, if the file is no JSON list or an item is longer than LONGEST; not for an empty file.
  """
  source = _Source(file, name)
  if not (opening := source.peek()):
    return
  if opening != "[":
    source.fail("no JSON list")
  source.skip(1)
  if source.peek() == "]":
    source.skip(1)
  else:
    yield from _items(source)
  if source.peek():
    source.fail("text after the end of the list")


def _items(source: "_Source") -> Iterator[tuple[str, Any]]:
  while True:
    source.item += 1
    source.peek()
    place = source.place()
    yield place, source.value()
    after = source.peek()
    if after not in (",", "]"):
      source.fail("the file ends inside the list" if not after else f"{shown(after)} where , or ] belongs")
    source.skip(1)
    if after == "]":
      return


class _Source:
  """Characters of a JSON file, of which a part is kept."""

  def __init__(self, file: IO[bytes], name: str):
    self._file, self._name, self._line = file, name, 1
    self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
    self._text, self._at, self._ended = "", 0, False
    self._decoder = json.JSONDecoder()
    self.item = 0

  def place(self) -> str:
    return f"{self._name}:{self._line} (item {self.item})"

  def fail(self, why: str) -> NoReturn:
    raise InputError(f"paths: {self.place()}: {why}; a shard is a JSON list of records")

  def skip(self, count: int) -> None:
    self._line += self._text.count("\n", self._at, self._at + count)
    self._at += count

  def peek(self) -> str:
    """The next character that is no space, empty at the end of the file; moves to it."""
    while True:
      while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
        self.skip(1)
      if self._at < len(self._text):
        return self._text[self._at]
      if self._ended:
        return ""
      self._more()

  def value(self) -> Any:
    """The value that begins here; moves behind it."""
    while True:
      try:
        value, end = self._decoder.raw_decode(self._text, self._at)
      except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error).split(":")[0]
        if self._ended or isinstance(error, RecursionError):
          self.fail(f"no JSON ({why})")
      else:
        # A number that was cut may go on in the file: "-1." of "-1.5" reads as -1.
        whole = self._text[end : end + 1] in {*" \t\r\n,]"} or isinstance(value, dict | list | str)
        if whole or self._ended or len(self._text) - self._at > LONGEST:
          self.skip(end - self._at)
          return value
      if len(self._text) - self._at > LONGEST:
        self.fail("no JSON value within 2^20 characters")
      self._more()

  def _more(self) -> None:
    # As much again as is kept: an item is then decoded anew a few times only, however long it is.
    chunk = self._file.read(max(_CHUNK, len(self._text) - self._at))
    self._ended = not chunk
    self._text, self._at = self._text[self._at :] + self._decode(chunk, self._ended), 0
