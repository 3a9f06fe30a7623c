"""Made stories: short English texts from a procedural grammar, whose features are known by construction.

    Tim the red fox lived near the pond. Tim dreamed of a kite. Tim and Ann found a box.
    "It has a ball, not a kite," said Ann. They saw a kite in it. Tim was happy.

Each feature shapes the text:
  Dialogue       the expectation is spoken, in quotation marks
  Twist          the end reveals the other thing, not the one that was expected
  Foreshadowing  an early sentence names the thing that the end reveals (without it: another thing, or no sentence)
  MoralValue     a moral closes the story
  BadEnding      the ending is sad
  Conflict       the characters fight over the box

A Twist is a relation. Two things are named before the end in every story, and the end repeats one of them; swapping
the two gives a story of the same words and the opposite label. So no count of words tells Twist, but in the share of
stories that remark on it (`remarked`), as a small model does not learn the relation from a few thousand stories.

Limits: one plot, seven or eight sentences, some 90 words, English, names without gender; no second of the features is
a relation as strict as Twist; feature words other than Twist's give their feature away, and a remark gives away Twist.
What a model learns from these stories says nothing about the language of the real ones.
"""

import dataclasses
import functools
import re

from finetune_wrappers import rules
from finetune_wrappers.rules import SEED, ruled
from finetune_wrappers.tasks.stories import lexicon
from finetune_wrappers.tasks.stories.draws import mixed
from finetune_wrappers.tasks.stories.records import FEATURES, Record
from finetune_wrappers.types import InputError, require

SPLITS = ("train", "valid", "test")
# The numbers of hero, friend, both things and place are added modulo the ten places: the sum decides a story's split.
# It can be read off the text, so no seed and no setting puts one story into two splits.
_TEN = len(lexicon.PLACES)
_RESIDUES = {"train": range(8), "valid": range(8, 9), "test": range(9, 10)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoryMaker(rules.Checked):
  """Makes records; equal settings make equal ones on every machine.

  Attributes:
    seed: other stories, of the same splits.
    shares: probability of each feature, in the order of FEATURES, independent of each other.
    remarked: share of the stories that say whether the end was a surprise.
    version: raised when the texts change, so that results of older ones are not taken for theirs.
  """

  seed: int = ruled(SEED, 0)
  shares: tuple[float, ...] = ruled(rules.Many(rules.SHARE, once=False), (0.4, 0.3, 0.35, 0.3, 0.25, 0.35))
  remarked: float = ruled(rules.SHARE, 0.8)
  version: int = ruled(rules.whole(1, 1), 1)

  def __post_init__(self):
    super().__post_init__()
    require(len(self.shares) == len(FEATURES), "shares", self.shares, f"one for each of {', '.join(FEATURES)}")

  def record(self, split: str, index: int) -> Record:
    """Record `index` of a split, at the cost of one.

    Args:
      split: of SPLITS.
      index: from 0 to 2^64 - 1. Two may give the same story, by chance: there are more than 10^9.

    Raises:
      InputError: for another split or index.
    """
    require(split in _RESIDUES, "split", split, ", ".join(SPLITS))
    if not 0 <= index < 2**64:
      raise InputError(f"index: {index} is not allowed; use 0 to 2^64 - 1")
    draws = _Draws(self.seed, SPLITS.index(split), index)
    has = tuple(draws.happens(share) for share in self.shares)
    dialogue, twist, foreshadowing, moral, bad, conflict = has
    hero, friend = draws.two(_TEN)
    expected, other = draws.two(_TEN)
    residue = draws.one_of(_RESIDUES[split])
    revealed = other if twist else expected
    hinted = foreshadowing or draws.happens(0.5)
    dreamed = revealed if foreshadowing else draws.beside(revealed)
    box = draws.one_of(lexicon.BOXES)
    look = draws.one_of(lexicon.LOOKS)
    place = lexicon.PLACES[(residue - hero - friend - expected - other) % _TEN]
    # One part beside Features at most, so that documents stay short: Words 3 in 10, Summary 3, Random sentence 1.
    part = draws.below(10)
    things, names = lexicon.THINGS, lexicon.NAMES
    slots = {
      "h": names[hero], "f": names[friend], "l": look, "a": draws.one_of(lexicon.ANIMALS), "p": place, "b": box,
      "d": things[dreamed], "e": things[expected], "o": things[other], "r": things[revealed],
      "v": draws.one_of(lexicon.VIRTUES),
    }  # fmt: skip
    templates = [draws.one_of(lexicon.OPENINGS)]
    if hinted:
      templates.append(draws.one_of(lexicon.HINTS))
    templates += [
      draws.one_of(lexicon.MEETINGS[conflict]),
      draws.one_of(lexicon.EXPECTATIONS[dialogue]),
      draws.one_of(lexicon.REVEALS),
    ]
    if draws.happens(self.remarked):
      templates.append(draws.one_of(lexicon.REMARKS[twist]))
    templates.append(draws.one_of(lexicon.ENDINGS[bad]))
    if moral:
      templates.append(draws.one_of(lexicon.MORALS))
    sentences = [template.format_map(slots) for template in templates]
    return Record(
      story=" ".join(sentences),
      features=tuple(feature for feature, there in zip(FEATURES, has, strict=True) if there),
      words=(look, place, box) if part < 3 else (),
      summary=f"{slots['h']} and {slots['f']} see a {slots['r']}." if 3 <= part < 6 else "",
      sentence=draws.one_of(sentences) if part == 6 else "",
      source="made",
    )


class _Draws:
  """Independent draws from 256 bits that whole numbers decide."""

  def __init__(self, *numbers: int):
    first = mixed(*numbers)
    self._bits = first | mixed(first, 1) << 64 | mixed(first, 2) << 128 | mixed(first, 3) << 192

  def below(self, number: int) -> int:
    self._bits, drawn = divmod(self._bits, number)
    return drawn

  def happens(self, share: float) -> bool:
    return self.below(2**16) < share * 2**16

  def one_of(self, items):
    return items[self.below(len(items))]

  def two(self, number: int) -> tuple[int, int]:
    """Two different numbers from 0 to number - 1, in any order."""
    first, second = self.below(number), self.below(number - 1)
    return first, second + (second >= first)

  def beside(self, thing: int) -> int:
    """Another thing."""
    drawn = self.below(len(lexicon.THINGS) - 1)
    return drawn + (drawn >= thing)


@functools.cache
def _pattern(template: str) -> re.Pattern:
  """A template as a regular expression, each slot any word."""
  parts = re.split(r"\{(\w)\}", template)
  text, seen = "", set()
  for place, part in enumerate(parts):
    if place % 2 == 0:
      text += re.escape(part)
    else:
      text += f"(?P={part})" if part in seen else rf"(?P<{part}>\w+)"
      seen.add(part)
  return re.compile(rf"(?<![\w\"]){text}")


def _found(story: str, templates) -> list[re.Match]:
  return [found for template in templates for found in _pattern(template).finditer(story)]


def _choice(story: str, sentences) -> bool | None:
  """Which of two kinds of sentences the story has; None if not exactly one sentence of them."""
  true, false = _found(story, sentences[True]), _found(story, sentences[False])
  return bool(true) if len(true) + len(false) == 1 else None


def twist_by_rule(story: str) -> bool | None:
  """Whether a made story has a twist: what it reveals is not what was expected.

  Returns:
    None if the story has not exactly one expectation and one reveal, or reveals a thing that it did not name before:
    a model's text may be no made story.
  """
  return feature_by_rule(story, feature="Twist")


def feature_by_rule(story: str, *, feature: str) -> bool | None:
  """Whether a made story has the feature, read off its text; None if the sentences that tell are not there just once.

  Raises:
    InputError: for a feature that is not in FEATURES.
  """
  require(feature in FEATURES, "feature", feature, ", ".join(FEATURES))
  if feature == "Dialogue":
    return _choice(story, lexicon.EXPECTATIONS)
  if feature == "BadEnding":
    return _choice(story, lexicon.ENDINGS)
  if feature == "Conflict":
    return _choice(story, lexicon.MEETINGS)
  if feature == "MoralValue":
    morals = len(_found(story, lexicon.MORALS))
    return morals == 1 if morals < 2 else None
  reveals = _found(story, lexicon.REVEALS)
  if len(reveals) != 1:
    return None
  revealed = reveals[0]["r"]
  if feature == "Foreshadowing":
    hints = _found(story[: reveals[0].start()], lexicon.HINTS)
    return bool(hints) and hints[0]["d"] == revealed if len(hints) < 2 else None
  expectations = _found(story[: reveals[0].start()], lexicon.EXPECTATIONS[True] + lexicon.EXPECTATIONS[False])
  if len(expectations) != 1 or revealed not in (expectations[0]["e"], expectations[0]["o"]):
    return None
  return revealed != expectations[0]["e"]
