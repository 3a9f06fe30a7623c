"""RASP programs as they are: their steps, their values by Tracr's interpreter, and strings to try them on."""

import copy
import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from tracr.rasp import rasp

# Work of the interpreter grows with the square of the length: a string of n letters counts n * n pairs. All strings
# are tried up to the first number of pairs (about 10^5 strings of 6 letters, a few seconds), else as many as make the
# second.
ALL_PAIRS = 4_000_000
SOME_PAIRS = 1_000_000
_UNDEFINED = (ArithmeticError, TypeError, ValueError)


def fresh(program: rasp.SOp) -> rasp.SOp:
  """The same program from new objects, numbered in order of use.

  Tracr tells steps apart by numbers that they get when they are first looked at and that their copies keep: a program
  whose parts were read (`.label`) or compiled before would come out as another one.
  """
  copies: dict[int, rasp.RASPExpr] = {}
  for number, step in enumerate(steps(program), start=1):
    if isinstance(step, rasp.TokensType | rasp.IndicesType):
      copies[id(step)] = step
      continue
    made = copy.copy(step)
    made.annotations = dict(step.annotations)
    for name, value in vars(step).items():
      if isinstance(value, rasp.RASPExpr):
        setattr(made, name, copies[id(value)])
    made.__dict__["unique_id"] = number
    copies[id(step)] = made
  made = copies[id(program)]
  assert isinstance(made, rasp.SOp)
  return made


def steps(program: rasp.SOp) -> list[rasp.RASPExpr]:
  """Every step of a program, each after those that it reads, the program itself last."""
  found: dict[int, rasp.RASPExpr] = {}

  def visit(step: rasp.RASPExpr) -> None:
    if id(step) not in found:
      for child in step.children:
        visit(child)
      found[id(step)] = step

  visit(program)
  return list(found.values())


def said(step: rasp.RASPExpr) -> str:
  """A step in words: its name if the user gave it one, else its kind and what it reads."""
  if step.name != rasp.default_name(step) or not step.children:
    return step.name
  return f"the {type(step).__name__} of {' and '.join(said(child) for child in step.children)}"


class Interpreter(rasp.DefaultRASPEvaluator):
  """Tracr's interpreter, each step once for a string; None only where an answer is undefined.

  Undefined are: a function that raises, a mean of words, the value where nothing is selected if that has no default,
  and all that is computed from those. Tracr's own interpreter raises for the whole string.
  """

  def __init__(self, *, causal: bool = False):
    super().__init__()
    self._causal = causal
    self._values: dict[int, Any] = {}

  def values(self, program: rasp.SOp, string: Sequence[Any]) -> list[Any]:
    """The program's answer at each letter; those of its steps are kept for `value` until the next string."""
    self._values = {}
    return self.evaluate(program, list(string))

  def value(self, step: rasp.SOp) -> list[Any]:
    """A step's values on the last string."""
    return self._values[id(step)]

  def evaluate(self, expr: rasp.RASPExpr, xs: Sequence[Any]) -> Any:
    """Once for each step and string."""
    if id(expr) not in self._values:
      self._values[id(expr)] = super().evaluate(expr, xs)
    return self._values[id(expr)]

  def eval_map(self, sop: rasp.Map, xs):
    """None where the function raises."""
    return [_try(sop.f, x) for x in self.evaluate(sop.inner, xs)]

  def eval_sequence_map(self, sop: rasp.SequenceMap, xs):
    """None where the function raises."""
    return [_try(sop.f, x, y) for x, y in zip(self.evaluate(sop.fst, xs), self.evaluate(sop.snd, xs), strict=True)]

  def eval_select(self, sel: rasp.Select, xs):
    """None where the predicate raises, False in the future of a causal program."""
    keys, queries = self.evaluate(sel.keys, xs), self.evaluate(sel.queries, xs)
    if not self._causal:
      return [[_try(sel.predicate, key, query) for key in keys] for query in queries]
    return [
      [_try(sel.predicate, key, query) if place <= row else False for place, key in enumerate(keys)]
      for row, query in enumerate(queries)
    ]

  def eval_selector_width(self, sop: rasp.SelectorWidth, xs):
    """None where it is not known what is selected."""
    return [None if None in row else sum(row) for row in self.evaluate(sop.selector, xs)]

  def eval_aggregate(self, sop: rasp.Aggregate, xs):
    """None where it is not known what is selected, or what is has no mean."""
    values = self.evaluate(sop.sop, xs)
    return [_mean(row, values, sop.default) for row in self.evaluate(sop.selector, xs)]


def _try(function: Callable, *values: Any) -> Any:
  if any(value is None for value in values):
    return None
  try:
    return function(*values)
  except _UNDEFINED:
    return None


def _mean(row: list, values: list, default: Any) -> Any:
  chosen = [value for selected, value in zip(row, values, strict=True) if selected]
  if None in row or any(value is None for value in chosen):
    return None
  if len(chosen) <= 1:
    return chosen[0] if chosen else default
  return _try(lambda *numbers: sum(numbers) / len(numbers), *chosen)


@dataclasses.dataclass(frozen=True)
class Tried:
  """Strings on which a program was interpreted.

  Attributes:
    strings: each a list of tokens.
    values: of each SOp of the program by its `label`, a list of its values at each letter for each string.
    given: whether the user gave the strings.
  """

  strings: list[list[Any]]
  values: dict[str, list[list[Any]]]
  given: bool


def all_strings_fit(*, num_tokens: int, max_seq_len: int) -> bool:
  """Whether all strings are few enough to be tried."""
  pairs = 0
  for length in range(1, max_seq_len + 1):
    pairs += num_tokens**length * length**2
    if pairs > ALL_PAIRS:
      return False
  return True


def tried(
  program: rasp.SOp,
  vocab: set[Hashable],
  max_seq_len: int,
  *,
  causal: bool = False,
  strings: Sequence[Sequence[Any]] | None = None,
) -> Tried:
  """Interprets a program on given strings; else on all, or on many that reach as many values of its steps as they can.

  Args:
    program: from `fresh`.
    vocab: its tokens.
    max_seq_len: the longest string.
    causal: whether selectors see the past only.
    strings: to try, None to choose them.
  """
  sops = [step for step in steps(program) if isinstance(step, rasp.SOp)]
  interpreter = Interpreter(causal=causal)
  found = Tried([], {sop.label: [] for sop in sops}, strings is not None)

  def run(string: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    interpreter.values(program, string)
    found.strings.append(list(string))
    for sop in sops:
      values = interpreter.value(sop)
      found.values[sop.label].append(values)
      for value in values:
        yield sop.label, value

  letters = sorted(vocab, key=str)
  if strings is not None:
    for string in strings:
      list(run(string))
    return found
  if all_strings_fit(num_tokens=len(letters), max_seq_len=max_seq_len):
    for length in range(1, max_seq_len + 1):
      for places in np.ndindex(*[len(letters)] * length):
        list(run([letters[place] for place in places]))
    return found
  reached: set[tuple[str, Any]] = set()
  promising: list[list[Any]] = []
  seen: set[tuple] = set()
  pairs, rng = 0, np.random.default_rng(0)
  planned = _chosen_strings(letters, max_seq_len, rng)
  while pairs < SOME_PAIRS:
    # The second half changes strings that were the first to reach some value of some step.
    string = next(planned) if pairs < SOME_PAIRS // 2 or not promising else _changed(promising, letters, rng)
    pairs += max(1, len(string)) ** 2
    if tuple(string) not in seen and 1 <= len(string) <= max_seq_len:
      seen.add(tuple(string))
      new = {reach for reach in run(string) if reach not in reached}
      reached |= new
      promising += [string] if new else []
  return found


def _chosen_strings(letters: list, max_seq_len: int, rng: np.random.Generator) -> Iterator[list[Any]]:
  """Without end: constant strings, the same with letters changed, any share of one letter, random and distinct ones."""
  for letter in letters:
    yield [letter] * max_seq_len
  while True:
    letter = letters[rng.integers(len(letters))]
    for length in (max_seq_len, int(rng.integers(1, max_seq_len + 1))):
      yield [letter] * length
      for _ in range(2):
        yield _changed([[letter] * length], letters, rng, lengths=False)
      rest = [other for other in letters if other != letter] or letters
      others = rest if rng.integers(2) else [rest[rng.integers(len(rest))]]
      copies = int(rng.integers(length + 1))
      string = [letter] * copies + [others[i] for i in rng.integers(len(others), size=length - copies)]
      yield [string[i] for i in rng.permutation(length)]
      yield [letters[i] for i in rng.integers(len(letters), size=length)]
      yield [letters[i] for i in rng.permutation(len(letters))[:length]]


def _changed(strings: list[list], letters: list, rng: np.random.Generator, *, lengths: bool = True) -> list[Any]:
  """One of the strings with one or two letters replaced, put in or taken out."""
  string = list(strings[rng.integers(len(strings))])
  for _ in range(1 + int(rng.integers(2))):
    place, letter = int(rng.integers(len(string))), letters[rng.integers(len(letters))]
    kind = int(rng.integers(3)) if lengths else 0
    if kind == 0 or (kind == 1 and len(string) == 1):
      string[place] = letter
    elif kind == 1:
      del string[place]
    else:
      string.insert(place, letter)
  return string
