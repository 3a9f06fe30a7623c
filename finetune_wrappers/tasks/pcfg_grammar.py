"""Probabilistic context-free grammars without recursion, and the paper's one (part B).

A derivation starts at one symbol and replaces parents by one of their right sides, drawn by its probability,
until only terminals are left. No symbol may lead back to itself, so every string is finite and the grammar
has a shortest and a longest one.
"""

import collections
import dataclasses
import functools
import graphlib
import math
import re
from collections.abc import Iterable

from finetune_wrappers.types import InputError, require

Rule = tuple[str, tuple[str, ...], float]


@dataclasses.dataclass(frozen=True)
class Grammar:
  """A grammar as data: hashable, and made of plain values only, so that stage keys can hash it.

  Attributes:
    start: the symbol that every derivation starts from.
    rules: (parent, children, probability) each; a parent's probabilities sum to 1 (within 1e-9).

  Raises:
    InputError: if `rules` are no such grammar (one line says why), or `start` has none.
  """

  start: str
  rules: tuple[Rule, ...]

  def __post_init__(self):
    _check_each(self.rules)
    if self.start not in self.alternatives:
      raise InputError(f"start: {self.start!r} has no rule; use one of {', '.join(self.alternatives)}")
    _check_together(self)

  @functools.cached_property
  def alternatives(self) -> dict[str, tuple[tuple[tuple[str, ...], float], ...]]:
    """Each parent's (children, probability), in the order of the rules."""
    found = collections.defaultdict(list)
    for parent, children, probability in self.rules:
      found[parent].append((children, float(probability)))
    return {parent: tuple(sides) for parent, sides in found.items()}

  @functools.cached_property
  def bottom_up(self) -> tuple[str, ...]:
    """Every symbol, after all symbols that can be derived from it."""
    # Not sets: their order, and with it this one, would differ from process to process.
    children = {
      p: dict.fromkeys(child for side, _ in sides for child in side) for p, sides in self.alternatives.items()
    }
    return tuple(graphlib.TopologicalSorter(children).static_order())

  @functools.cached_property
  def heights(self) -> dict[str, int]:
    """Steps of the longest way from each symbol down to a terminal; 0 for a terminal. In the order of `bottom_up`."""
    heights = {}
    for symbol in self.bottom_up:
      children = (child for side, _ in self.alternatives.get(symbol, ()) for child in side)
      heights[symbol] = 1 + max((heights[child] for child in children), default=-1)
    return heights

  @functools.cached_property
  def terminals(self) -> tuple[str, ...]:
    """Symbols that are no parent, sorted: a terminal's place here is its token id."""
    return tuple(sorted(symbol for symbol in self.bottom_up if symbol not in self.alternatives))

  @functools.cached_property
  def min_length(self) -> int:
    """Tokens of the shortest string."""
    return self._length(min)

  @functools.cached_property
  def max_length(self) -> int:
    """Tokens of the longest string."""
    return self._length(max)

  def _length(self, choose) -> int:
    lengths = dict.fromkeys(self.terminals, 1)
    for symbol in self.bottom_up:
      if symbol in self.alternatives:
        lengths[symbol] = choose(sum(map(lengths.__getitem__, side)) for side, _ in self.alternatives[symbol])
    return lengths[self.start]


_TOKEN = re.compile(
  r"""\s*(?:(?P<word>'[^'\s]+'|"[^"\s]+"|(?:(?!->)[^\s|'"[\]])+)"""
  r"""|\[\s*(?P<probability>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\]|(?P<other>->|\|))\s*"""
)
_NOTATION = "parent -> child child [probability], and after each | another right side with its own probability"


def parse(lines: Iterable[str]) -> Grammar:
  """A grammar in nltk's notation, a rule a line: `s -> r q [0.5] | 'a' [0.5]`; the first one's parent is the start.

  Terminals stand in quotes; if none does, as in `d -> c a [1]`, they are the symbols without a rule.

  Raises:
    InputError: for a line that is none, quotes that do not fit the rules, or rules that are no grammar.
  """
  rules = [rule for line in lines for rule in _rules_in(str(line))]
  parents, symbols = {parent for parent, *_ in rules}, dict.fromkeys(symbol for _, side, _ in rules for symbol in side)
  bare = {symbol: symbol[1:-1] for symbol in symbols if symbol[0] in "'\""}
  for symbol in symbols:
    if bare.get(symbol) in parents:
      raise InputError(f"rules: {symbol} is a terminal that has a rule; drop its quotes, or rename one of the two")
    if bare and symbol not in bare and symbol not in parents:
      raise InputError(f"rules: {symbol} has neither a rule nor quotes, as other terminals have; add one of them")
  rules = [(parent, tuple(bare.get(symbol, symbol) for symbol in side), p) for parent, side, p in rules]
  return Grammar(rules[0][0] if rules else "", tuple(rules))


def _rules_in(line: str) -> list[Rule]:
  """One for each right side of a line; terminals keep their quotes."""
  tokens, place = [], 0
  while found := _TOKEN.match(line, place):
    tokens.append(found)
    place = found.end()
  kinds = "".join((found.lastgroup or "")[0] if found["other"] is None else found["other"][0] for found in tokens)
  fine = place == len(line) and re.fullmatch(r"w-w+p(\|w+p)*", kinds) and tokens[0]["word"][0] not in "'\""
  require(bool(fine), "rules", line, _NOTATION)
  rules, side = [], []
  for found in tokens[2:]:
    if found["word"]:
      side.append(found["word"])
    elif found["probability"]:
      rules.append((tokens[0]["word"], tuple(side), float(found["probability"])))
      side = []
  return rules


def _check_each(rules: tuple[Rule, ...]) -> None:
  """Raises InputError for no rules, an invalid rule, or a rule given twice."""
  if not rules:
    raise InputError("rules: there are none; use one or more")
  seen = set()
  for parent, children, probability in rules:
    if not children:
      raise InputError(f"rules: {parent!r} has an empty right side; use one symbol or more")
    text = f"{parent} -> {' '.join(children)}"
    if not (math.isfinite(probability) and probability > 0):
      raise InputError(f"rules: {text!r} has probability {probability}; use a number above 0, up to 1")
    if (parent, children) in seen:
      raise InputError(f"rules: {text!r} stands there twice; use one rule with the sum of both probabilities")
    seen.add((parent, children))


def _check_together(grammar: Grammar) -> None:
  """Raises InputError for probabilities that do not sum to 1, symbols that loop, or parents nobody leads to."""
  for parent, sides in grammar.alternatives.items():
    total = math.fsum(probability for _, probability in sides)
    if abs(total - 1) > 1e-9:
      raise InputError(f"rules: probabilities of {parent!r} sum to {total}; they must sum to 1")
  try:
    order = grammar.bottom_up
  except graphlib.CycleError as error:
    path = " -> ".join(reversed(error.args[1]))
    raise InputError(f"rules: {path} leads back to itself; only grammars without recursion are allowed") from None
  reached = {grammar.start}
  for symbol in reversed(order):
    if symbol in reached and symbol in grammar.alternatives:
      reached.update(child for side, _ in grammar.alternatives[symbol] for child in side)
  lost = sorted(grammar.alternatives.keys() - reached)
  if lost:
    raise InputError(f"rules: {', '.join(lost)} cannot be reached from {grammar.start!r}; drop their rules")


_PAPER_SIDES = {
  "s": ("r q", "q p"),
  "p": ("m n o", "n o m"),
  "q": ("n m o", "m n"),
  "r": ("o m", "m o n"),
  "m": ("l j", "j l k"),
  "n": ("k j l", "l j k"),
  "o": ("l k j", "k j"),
  "j": ("h i", "i h"),
  "k": ("h g i", "g h i"),
  "l": ("i h g", "h i g"),
  "g": ("d f e", "f e d"),
  "h": ("e d f", "d e f"),
  "i": ("e f d", "f d e"),
  "d": ("c a", "a b c"),
  "e": ("c b", "c a b"),
  "f": ("c b a", "b a"),
}

# The paper's grammar: two right sides a parent, as likely as each other; strings of 276 +- 42 tokens a, b, c.
PAPER_GRAMMAR = Grammar(
  start="s",
  rules=tuple((parent, tuple(side.split()), 0.5) for parent, sides in _PAPER_SIDES.items() for side in sides),
)
