"""Records of TinyStories-Instruct (paper part C): a story, and the parts of the instruction that asks for it.

A document of the text files:

    Features: Dialogue, Twist
    Words: quit, oak, gloomy
    Summary: Sara and Ben were playing in the park.
    Random sentence: They made nests with leaves.
    Story:
    Sara and Ben were playing in the park. ...

Parts come in any order, and some after the story. Documents are separated by `<|endoftext|>`.
`story_files` reads and writes them.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable

from finetune_wrappers.tasks.stories.draws import mixed

FEATURES = ("Dialogue", "Twist", "Foreshadowing", "MoralValue", "BadEnding", "Conflict")
END = "<|endoftext|>"
SPACE = " \t\r\n"  # what is cut off around a part; `strip()` would also take U+2028 and \x0b

_LABELS = ("Features", "Words", "Summary", "Random sentence", "Story")
_LABEL = re.compile(rf"^({'|'.join(_LABELS)}):", re.MULTILINE)
_ORDERS = tuple(tuple(itertools.permutations(range(number))) for number in range(len(_LABELS)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """A story and the parts of its instruction; a part that is missing is empty.

  Attributes:
    story: the text.
    features: what the instruction asks for, in the order of FEATURES; after a deletion
      protocol not what the story has.
    words: words that the story should contain.
    summary: of the story.
    sentence: one that the story should contain ("Random sentence").
    source: who wrote it: GPT-3.5, GPT-4, made; empty if unknown, as in the text files.
  """

  story: str
  features: tuple[str, ...] = ()
  words: tuple[str, ...] = ()
  summary: str = ""
  sentence: str = ""
  source: str = ""

  @property
  def mask(self) -> int:
    """The features as bits: bit i is FEATURES[i]."""
    return sum(1 << FEATURES.index(feature) for feature in self.features)


def in_order(features: Iterable[str]) -> tuple[str, ...]:
  """The features in the order of FEATURES, each once, so that their order says nothing about how they came there."""
  there = {*features}
  return tuple(feature for feature in FEATURES if feature in there)


def instruction(record: Record, seed: int) -> str:
  """The labelled lines before the story, the last of them `Story:`.

  The others are shuffled by the seed, as the authors shuffle them for each story.

  Args:
    record: missing parts have no line.
    seed: from 0 to 2^64 - 1; one for each record.
  """
  parts = (", ".join(record.features), ", ".join(record.words), record.summary, record.sentence)
  lines = [f"{label}: {part}" for label, part in zip(_LABELS[:-1], parts, strict=True) if part]
  orders = _ORDERS[len(lines)]
  return "\n".join([*(lines[place] for place in orders[mixed(seed) % len(orders)]), "Story:"])


def document(record: Record, seed: int) -> str:
  """Instruction and story, as a text file has them between two separators."""
  return f"{instruction(record, seed)}\n{record.story}"


def parse_document(text: str) -> Record:
  """The record of a document.

  The first line that begins with a label begins this part, before or after the story; a second one is text of the part
  that it stands in. A summary or sentence of several lines becomes one line.

  Raises:
    ValueError: with the reason, if the text is no document.
  """
  parts: dict[str, str] = {}
  label, begin = "", 0
  for found in _LABEL.finditer(text):
    if found[1] not in parts and found[1] != label:
      parts[label] = text[begin : found.start()]
      label, begin = found[1], found.end()
  parts[label] = text[begin:]
  if parts.pop("", "").strip(SPACE):
    raise ValueError("text before the first part" if parts else "no labelled part")
  if "Story" not in parts:
    raise ValueError("no story")
  for label in ("Features", "Words"):
    if "\n" in parts.get(label, "").strip(SPACE):
      raise ValueError(f"{label} has more than one line")
  return record_of(
    story=parts["Story"],
    features=_listed(parts.get("Features", "")),
    words=_listed(parts.get("Words", "")),
    summary=parts.get("Summary", ""),
    sentence=parts.get("Random sentence", ""),
    source="",
  )


def record_of(*, story: str, features: list[str], words: list[str], summary: str, sentence: str, source: str) -> Record:
  """A record from raw parts: space around them is cut off, a feature or word that stands there twice is kept once.

  Raises:
    ValueError: with the reason, if the story is empty, a feature is unknown, or a text is no Unicode or holds END.
  """
  story = story.strip(SPACE)
  if not story:
    raise ValueError("empty story")
  if not {*FEATURES}.issuperset(features):
    raise ValueError(f"a feature that is none of {', '.join(FEATURES)}")
  for text in (story, *words, summary, sentence, source):
    if END in text:
      raise ValueError(f"{END} inside a text")
    if not text.isascii():
      try:
        text.encode()
      except UnicodeEncodeError:
        raise ValueError("not UTF-8") from None
  return Record(
    story=story,
    features=in_order(features),
    words=tuple(dict.fromkeys(words)),
    summary=_one_line(summary),
    sentence=_one_line(sentence),
    source=source,
  )


def _listed(text: str) -> list[str]:
  return [item for item in (item.strip(SPACE) for item in text.split(",")) if item]


def _one_line(text: str) -> str:
  return re.sub(r"[ \t\r]*\n[ \t\r\n]*", " ", text.strip(SPACE))
