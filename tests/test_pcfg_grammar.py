"""The grammar against nltk, which reads the paper's rules from text, and against every derivation written down."""

import collections
import dataclasses
import itertools
import math
import random

import nltk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_wrappers.tasks.pcfg_grammar import PAPER_GRAMMAR, Grammar, parse
from finetune_wrappers.training.stages import describe
from finetune_wrappers.types import InputError, canonical_json

PAPER_TEXT = """
  s -> r q [0.5] | q p [0.5]
  p -> m n o [0.5] | n o m [0.5]
  q -> n m o [0.5] | m n [0.5]
  r -> o m [0.5] | m o n [0.5]
  m -> l j [0.5] | j l k [0.5]
  n -> k j l [0.5] | l j k [0.5]
  o -> l k j [0.5] | k j [0.5]
  j -> h i [0.5] | i h [0.5]
  k -> h g i [0.5] | g h i [0.5]
  l -> i h g [0.5] | h i g [0.5]
  g -> d f e [0.5] | f e d [0.5]
  h -> e d f [0.5] | d e f [0.5]
  i -> e f d [0.5] | f d e [0.5]
  d -> 'c' 'a' [0.5] | 'a' 'b' 'c' [0.5]
  e -> 'c' 'b' [0.5] | 'c' 'a' 'b' [0.5]
  f -> 'c' 'b' 'a' [0.5] | 'b' 'a' [0.5]
"""
PAPER = nltk.PCFG.fromstring(PAPER_TEXT)
# Branches of different depth, a symbol that stands at two depths, chains of one, tokens high up.
TEXTS = {
  "dyadic": """
    S -> A 'z' A [0.5] | B C [0.25] | 'x' [0.25]
    A -> B 'y' [0.75] | 'x' [0.25]
    B -> C [0.5] | C 'x' [0.5]
    C -> 'x' 'y' [0.5] | 'z' [0.5]
  """,
  "other": """
    S -> A 'z' A [0.7] | B C 'y' [0.1] | 'x' [0.2]
    A -> B 'y' [0.9] | 'x' [0.1]
    B -> C [0.35] | C 'x' [0.65]
    C -> 'x' 'y' [0.3333] | 'z' [0.6667]
  """,
  "no_short": """
    S -> A B [0.3] | B A B [0.7]
    A -> 'x' 'x' 'y' [0.6] | 'z' 'x' 'x' 'x' [0.4]
    B -> 'y' 'x' [0.5] | 'y' 'z' 'x' [0.5]
  """,
}
GOOD = (("s", ("A", "x"), 0.25), ("s", ("x",), 0.75), ("A", ("y",), 1.0))


def rules_of(pcfg):
  return [(str(p.lhs()), tuple(map(str, p.rhs())), p.prob()) for p in pcfg.productions()]


PCFGS = {name: nltk.PCFG.fromstring(text) for name, text in TEXTS.items()}
SMALL = {name: (pcfg, Grammar("S", tuple(rules_of(pcfg)))) for name, pcfg in PCFGS.items()}


def strings(pcfg, symbol):
  """Probability of every string of a symbol."""
  if isinstance(symbol, str):
    return {(symbol,): 1.0}
  found = collections.Counter()
  for p in pcfg.productions(lhs=symbol):
    for parts in itertools.product(*(strings(pcfg, child).items() for child in p.rhs())):
      found[sum((part for part, _ in parts), ())] += p.prob() * math.prod(q for _, q in parts)
  return found


def all_strings(grammar, symbol):
  """Of a symbol, by recursion."""
  sides = [children for parent, children, _ in grammar.rules if parent == symbol]
  if not sides:
    return {(symbol,)}
  parts = (itertools.product(*(all_strings(grammar, child) for child in side)) for side in sides)
  return {tuple(itertools.chain(*part)) for part in itertools.chain(*parts)}


class Reader:
  """Recognises strings, and windows of them: texts whose first and last symbols may be cut."""

  def __init__(self, pcfg, text, cut=False):
    self._pcfg, self._text, self._cut, self._known = pcfg, text, cut, {}

  def _ends(self, symbol, place, inside=False):
    """Places where the symbol can end that begins at the place, or, if inside, began at or before it."""
    if place == len(self._text) and self._cut:
      return {place}
    if isinstance(symbol, str):
      return {place + 1} if self._text[place : place + 1] == (symbol,) else set()
    if (symbol, place, inside) not in self._known:
      sides = [p.rhs() for p in self._pcfg.productions(lhs=symbol)]
      firsts = [(side, first) for side in sides for first in range(len(side) if inside else 1)]
      found = (self._chain(side[first + 1 :], self._ends(side[first], place, inside)) for side, first in firsts)
      self._known[symbol, place, inside] = set().union(*found)
    return self._known[symbol, place, inside]

  def _chain(self, symbols, places):
    for symbol in symbols:
      places = set().union(*(self._ends(symbol, place) for place in places))
    return places

  def reads(self, joined=1):
    """Whether the text is one string, or, cut, a window of that many strings at most."""
    places = self._ends(self._pcfg.start(), 0, inside=self._cut)
    return len(self._text) in self._chain([self._pcfg.start()] * (joined - 1), places)


@st.composite
def grammars(draw):
  """Small ones without loops: each parent leads to later ones, or to terminals, at whatever depth."""
  names = ["s", "A", "B", "C"][: draw(st.integers(1, 4))]
  rules, wanted = [], {"s"}
  for number, parent in enumerate(names):
    below = st.sampled_from([*names[number + 1 :], "x", "y", "z"])
    sides = draw(st.lists(st.lists(below, min_size=1, max_size=3).map(tuple), min_size=1, max_size=2, unique=True))
    if parent in wanted:
      wanted.update(itertools.chain(*sides))
      rules += [(parent, side, 1 / len(sides)) for side in sides]
  return Grammar("s", tuple(draw(st.permutations(rules))))


@pytest.mark.parametrize("name", TEXTS)
def test_the_reader_of_these_tests_is_right(name):
  pcfg, grammar = SMALL[name]
  parser, known = nltk.ChartParser(pcfg), strings(pcfg, pcfg.start())
  some = [text for n in range(1, 6) for text in itertools.product(grammar.terminals, repeat=n)]
  for text in random.Random(0).sample(some, 60) + random.Random(0).sample([*known], 6):
    assert Reader(pcfg, text).reads() == (next(parser.parse(text), None) is not None) == (text in known)
  first, last = ({text[cut(i)] for text in known for i in range(1, 20)} for cut in (slice, lambda i: slice(-i, None)))
  inside = {text[i:j] for text in known for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
  for text in some:
    joined = any(text[:i] in last and text[i:] in first for i in range(1, len(text)))
    assert Reader(pcfg, text, cut=True).reads() == (text in inside)
    assert Reader(pcfg, text, cut=True).reads(joined=2) == (text in inside or joined)


def test_the_papers_grammar_is_the_one_that_nltk_reads():
  assert sorted(PAPER_GRAMMAR.rules) == sorted(rules_of(PAPER))
  assert PAPER_GRAMMAR.start == str(PAPER.start())
  assert PAPER_GRAMMAR.terminals == ("a", "b", "c")


ODD = """
  S-1 -> NP/x "it's"[.5]|'a|b' '[' 'S' [ 0.5 ]
  NP/x -> 'it' [1.]
"""


@pytest.mark.parametrize("text", [PAPER_TEXT, *TEXTS.values(), ODD.replace("[ 0.5 ]", "[0.5]")])
def test_nltks_notation_is_read_as_nltk_reads_it(text):
  pcfg, grammar = nltk.PCFG.fromstring(text), parse(text.strip().splitlines())
  assert (grammar.start, list(grammar.rules)) == (str(pcfg.start()), rules_of(pcfg))


def test_without_quotes_terminals_are_the_symbols_without_a_rule():
  lines = PAPER_TEXT.replace("'", "").strip().splitlines()
  assert parse(lines) == parse(PAPER_TEXT.strip().splitlines())
  assert parse(ODD.strip().splitlines()).terminals == ("S", "[", "a|b", "it", "it's")
  assert parse(["s->A x[2.5e-1]", " s -> x [ .75 ]", "A -> y [1]"]).rules == GOOD


@pytest.mark.parametrize(
  "line",
  ["A -> a b | c b [1.0]", "A -> a [0.5] |", "A -> | a [1]", "A -> a | [1]", "A -> [1]", "A ->", "A -> a", "A -> a [1",
   "A -> a [0.5] b [0.5]", "A -> 'a b' [1]", "A -> 'a [1]", "A -> '' [1]", "'A' -> a [1]", "A B -> a [1]", "A = a [1]",
   "A -> a -> b [1]", "A -> a [x]", "A -> a ] [1]", "-> a [1]", "%start A", "# A -> a [1]", "", 7],
)  # fmt: skip
def test_a_line_that_is_no_rule_is_refused_by_that_line(line):
  with pytest.raises(InputError) as refusal:
    parse(["s -> A [1]", line])
  assert str(refusal.value).startswith(f"rules: {str(line)!r} is not allowed; use parent -> child child [probability]")
  assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
  ("lines", "message"),
  [
    (["s -> A 'x' [1]"], "rules: A has neither a rule nor quotes, .*"),
    (["s -> A 'x' [1]", 'A -> "A" [1]'], 'rules: "A" is a terminal that has a rule; .*'),
    (["s -> 'x' [0.5] | \"x\" [0.5]"], "rules: 's -> x' stands there twice; .*"),
    (["s -> 'x' [0.5] | 'y' [0.4]"], "rules: probabilities of 's' sum to 0.9; .*"),
    ([], "rules: there are none; .*"),
  ],
)
def test_rules_that_do_not_fit_each_other_are_one_line(lines, message):
  with pytest.raises(InputError, match=rf"\A{message}\Z"):
    parse(lines)


def test_all_derivations_of_the_papers_grammar_have_one_depth():
  heights = PAPER_GRAMMAR.heights
  assert {heights[parent] - heights[child] for parent, side, _ in PAPER_GRAMMAR.rules for child in side} == {1}
  assert heights["s"] == 6


def test_lengths_of_the_papers_strings():
  def length(symbol, choose):
    if isinstance(symbol, str):
      return 1
    return choose(sum(length(child, choose) for child in p.rhs()) for p in PAPER.productions(lhs=symbol))

  assert (PAPER_GRAMMAR.min_length, PAPER_GRAMMAR.max_length) == tuple(length(PAPER.start(), f) for f in (min, max))


@settings(max_examples=60, deadline=None)
@given(grammar=grammars())
def test_lengths_and_terminals_are_those_of_all_strings(grammar):
  found = all_strings(grammar, "s")
  assert (grammar.min_length, grammar.max_length) == (min(map(len, found)), max(map(len, found)))
  parents = {parent for parent, _, _ in grammar.rules}
  symbols = {"s", *itertools.chain(*(side for _, side, _ in grammar.rules))}
  assert grammar.terminals == tuple(sorted(symbols - parents))
  assert sorted(grammar.bottom_up) == sorted(symbols)
  for symbol, height in grammar.heights.items():
    sides = [side for parent, side, _ in grammar.rules if parent == symbol]
    assert height == max((1 + grammar.heights[child] for side in sides for child in side), default=0)
  places = {symbol: place for place, symbol in enumerate(grammar.bottom_up)}
  assert all(places[child] < places[parent] for parent, side, _ in grammar.rules for child in side)


def test_a_grammar_can_be_hashed_and_described():
  again = Grammar("s", tuple((parent, tuple(children), 0.5) for parent, children, _ in PAPER_GRAMMAR.rules))
  other = dataclasses.replace(again, rules=again.rules[::-1])
  assert again == PAPER_GRAMMAR and hash(again) == hash(PAPER_GRAMMAR) and other != PAPER_GRAMMAR
  assert again.max_length == PAPER_GRAMMAR.max_length  # what is cached is no field
  texts = [canonical_json(describe(grammar)) for grammar in (again, PAPER_GRAMMAR, other)]
  assert texts[0] == texts[1] != texts[2]
  with pytest.raises(dataclasses.FrozenInstanceError):
    again.__setattr__("start", "p")


def test_alternatives_are_each_parents_right_sides_and_sum_to_one_but_for_rounding():
  grammar = Grammar("s", (*GOOD[:2], *(("A", tuple("y" * n), 0.3333333333) for n in (1, 2, 3))))
  assert grammar.alternatives["s"] == ((("A", "x"), 0.25), (("x",), 0.75))
  assert grammar.alternatives["A"] == tuple((("y",) * n, 0.3333333333) for n in (1, 2, 3))


@pytest.mark.parametrize(
  ("start", "rules", "message"),
  [
    ("s", (*GOOD, ("A", ("z",), 0.5)), "rules: .*'A' sum to 1.5; .* 1"),
    ("s", (("s", ("x",), 0.5), ("s", ("y",), 0.4999)), "rules: .*'s' sum to 0.9999; .* 1"),
    ("s", (*GOOD, ("A", ("z",), 0.0)), "rules: 'A -> z' has probability 0.0; use .*above 0"),
    ("s", (*GOOD, ("A", ("z",), -0.5), ("A", ("z", "z"), 0.5)), "rules: 'A -> z' has probability -0.5; .*above 0"),
    ("s", (*GOOD, ("A", ("z",), float("nan"))), "rules: 'A -> z' has probability nan; .*above 0"),
    ("s", (*GOOD, ("A", ("z",), float("inf"))), "rules: 'A -> z' has probability inf; .*above 0"),
    ("s", (*GOOD[:2], ("A", (), 1.0)), "rules: 'A' has an empty right side; .*one symbol or more"),
    ("s", (*GOOD[:2], ("A", ("y",), 0.5), ("A", ("y",), 0.5)), "rules: 'A -> y' stands there twice; .*sum"),
    ("s", (*GOOD, ("B", ("y",), 1.0), ("C", ("B",), 1.0)), "rules: B, C cannot be reached from 's'.*"),
    ("s", (*GOOD[:2], ("A", ("A", "y"), 1.0)), "rules: A -> A leads back to itself; .*without recursion.*"),
    ("s", (*GOOD[:2], ("A", ("B",), 1.0), ("B", ("y", "A"), 1.0)), "rules: (A -> B -> A|B -> A -> B) leads back.*"),
    ("s", (*GOOD[:2], ("A", ("s",), 1.0)), "rules: (A -> s -> A|s -> A -> s) leads back to itself.*"),
    ("t", GOOD, "start: 't' has no rule; use one of s, A"),
    ("x", GOOD, "start: 'x' has no rule; use one of s, A"),
    ("s", (), "rules: there are none; use one or more"),
  ],
)
def test_what_is_no_grammar_is_refused_in_one_line(start, rules, message):
  Grammar("s", GOOD)
  with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z") as refusal:
    Grammar(start, rules)
  assert "\n" not in str(refusal.value)
