"""Files of TinyStories-Instruct, both ways: the text files, and the JSON shards of the original release.

Text (`*.txt`): documents (see `records`), each followed by `<|endoftext|>`.
JSON (`*.json`): a list of objects {story, instruction: {"prompt:", words, features}, summary, source}; the colon in
"prompt:" is the release's.
Files are read as a stream: memory is flat, whatever their size. Nothing in them is executed.
"""

import codecs
import dataclasses
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from finetune_wrappers.rules import SHARE, shown
from finetune_wrappers.tasks.stories.json_stream import LONGEST, stream_list
from finetune_wrappers.tasks.stories.records import END, SPACE, Record, document, parse_document, record_of
from finetune_wrappers.types import InputError, require

_CHUNK = 2**16
_EARLY = 1000  # records before the share of bad ones is judged, so that one bad record at the beginning is no half
_Item = tuple[str, Record | str]  # place in the file, and the record or the reason why there is none


@dataclasses.dataclass
class Report:
  """What was read so far.

  Attributes:
    read: good records.
    dropped: by reason, how many records were dropped.
    first: by reason, file:line of the first of them; in a JSON shard with the number of the item, from 1.
    repeated: good records that were left out, as another split has their story.
  """

  read: int = 0
  dropped: dict[str, int] = dataclasses.field(default_factory=dict)
  first: dict[str, str] = dataclasses.field(default_factory=dict)
  repeated: int = 0

  def rows(self) -> list[tuple[int, str, str]]:
    """(records dropped, reason, file:line of the first of them) for each reason, the commonest first."""
    found = sorted(self.dropped.items(), key=lambda row: (-row[1], row[0]))
    return [(count, reason, self.first[reason]) for reason, count in found]

  def lines(self) -> list[str]:
    """A line for each reason, the commonest first."""
    return [f"{count} dropped: {reason}; first at {first}" for count, reason, first in self.rows()]


class Records(Iterator[Record]):
  """The records of files, in their order; see `read_records`.

  Attributes:
    report: what was read so far.
  """

  def __init__(self, paths: list[epath.Path], bad_share: float):
    self.report = Report()
    self._items = (item for path in paths for item in _items(path))
    self._bad_share = bad_share

  def __next__(self) -> Record:
    """The next good record.

    Raises:
      InputError: as `read_records` says.
    """
    report = self.report
    for place, item in self._items:
      if isinstance(item, Record):
        report.read += 1
        return item
      report.dropped[item] = report.dropped.get(item, 0) + 1
      report.first.setdefault(item, place)
      self._judge(least=_EARLY)
    self._judge(least=1)
    raise StopIteration

  def _judge(self, *, least: int) -> None:
    bad = sum(self.report.dropped.values())
    total = bad + self.report.read
    if total >= least and bad > self._bad_share * total:
      raise InputError(
        f"bad_share: {bad} of {total} records are malformed, more than {self._bad_share:g}; {self.report.lines()[0]}"
      )


def read_records(paths: str | os.PathLike | Iterable[str | os.PathLike], *, bad_share: float = 0.01) -> Records:
  """The records of text files and JSON shards, one after the other.

  Malformed records are dropped and reported: no story, an unknown feature, a text that is no UTF-8, more than 2^20
  bytes, text after the last `<|endoftext|>` (a file that was cut short).

  Args:
    paths: one file or several, `*.txt` or `*.json`.
    bad_share: largest share of malformed records. It is judged from the thousandth on, and at the end.

  Raises:
    InputError: for no file, a file that is missing, of another kind, or without records; in the stream for more
      malformed records than bad_share, or for a shard that is no JSON list, with file, line and item.
  """
  SHARE.check("bad_share", bad_share)
  given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
  require(bool(given), "paths", given, "at least one file")
  found = [epath.Path(path) for path in given]
  for path in found:
    require(path.suffix in (".txt", ".json"), "paths", str(path), "files that end in .txt or .json")
    if not path.exists():
      raise InputError(f"paths: {path} is not there")
    if path.is_dir():
      raise InputError(f"paths: {path} is a folder; give the files in it")
  return Records(found, bad_share)


def _items(path: epath.Path) -> Iterator[_Item]:
  empty = True
  try:
    for item in _texts(path) if path.suffix == ".txt" else _objects(path):
      empty = False
      yield item
  except OSError as error:
    raise InputError(f"paths: {path} cannot be read ({os.strerror(error.errno or 0)})") from error
  if empty:
    raise InputError(f"paths: {path} holds no records")


def _texts(path: epath.Path) -> Iterator[_Item]:
  """The documents of a text file; line numbers count newlines only, as editors do."""
  end, line, lost = END.encode(), 1, False
  with path.open("rb") as file:
    rest = file.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
    while chunk := file.read(_CHUNK):
      joined = rest + chunk
      begun = max(0, len(rest) - len(end))  # before, there is no separator
      *texts, rest = joined.split(end) if joined.find(end, begun) >= 0 else [joined]
      for text in texts:
        yield f"{path}:{line + _blank_lines(text)}", "more than 2^20 bytes" if lost else _document(text)
        line, lost = line + text.count(b"\n"), False
      if len(rest) > LONGEST:
        line, rest, lost = line + rest[: -len(end)].count(b"\n"), rest[-len(end) :], True
  if lost or rest.strip():
    yield f"{path}:{line + _blank_lines(rest)}", f"no {END} after it"


def _blank_lines(text: bytes) -> int:
  return text[: len(text) - len(text.lstrip())].count(b"\n")


def _document(text: bytes) -> Record | str:
  try:
    return parse_document(text.decode())
  except UnicodeDecodeError:
    return "not UTF-8"
  except ValueError as error:
    return str(error)


def _objects(path: epath.Path) -> Iterator[_Item]:
  with path.open("rb") as file:
    for place, value in stream_list(file, name=f"{path}"):
      yield place, _record(value)


def _record(value: Any) -> Record | str:
  def texts(item: Any, field: str) -> list[str]:
    if item is None:
      return []
    if not isinstance(item, list) or not all(isinstance(text, str) for text in item):
      raise ValueError(f"{field} is no list of texts")
    return [text.strip(SPACE) for text in item]

  def text(field: str) -> str:
    found = value.get(field)
    if not isinstance(found, str | None):
      raise ValueError(f"{field} is no text")
    return found or ""

  try:
    if not isinstance(value, dict):
      raise ValueError("no JSON object")
    if value.get("story") is None:
      raise ValueError("no story")
    asked = value.get("instruction")
    if not isinstance(asked, dict | None):
      raise ValueError("instruction is no object")
    words, features = (texts((asked or {}).get(field), field) for field in ("words", "features"))
    return record_of(
      story=text("story"),
      features=features,
      words=words,
      summary=text("summary"),
      sentence="",
      source=text("source"),
    )
  except ValueError as error:
    return str(error)


def write_text(path: str | os.PathLike, records: Iterable[Record]) -> None:
  """Writes records as a text file, whole or not at all; the order of the parts is shuffled for each.

  Raises:
    InputError: for a record that would be read back as another one; sources are not written.
  """

  def texts():
    for index, record in enumerate(records):
      text = document(record, index)
      if _document(text.encode(errors="surrogatepass")) != dataclasses.replace(record, source=""):
        raise InputError(f"records: item {index + 1} cannot be written as text: {shown(record.story)}")
      yield f"{text}\n{END}\n"

  _write(path, texts())


def write_json(path: str | os.PathLike, records: Iterable[Record]) -> None:
  """Writes records as a JSON shard, whole or not at all.

  Raises:
    InputError: for a record that would be read back as another one, such as one with a sentence.
  """

  def texts():
    yield "["
    for index, record in enumerate(records):
      asked = {"prompt:": "", "words": record.words, "features": record.features}
      value = {"story": record.story, "instruction": asked, "summary": record.summary, "source": record.source}
      text = json.dumps(value)
      if _record(json.loads(text)) != record:
        raise InputError(f"records: item {index + 1} cannot be written as JSON: {shown(record.story)}")
      yield (",\n" if index else "\n") + text
    yield "\n]\n"

  _write(path, texts())


def _write(path: str | os.PathLike, texts: Iterable[str]) -> None:
  final = epath.Path(path)
  final.parent.mkdir(parents=True, exist_ok=True)
  temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}.tmp")  # `files` tidies them away after a kill
  try:
    with temporary.open("wb") as file:
      for text in texts:
        file.write(text.encode())
    temporary.replace(final)
  finally:
    temporary.unlink(missing_ok=True)
