"""Any two RASP programs as a task: one answers for O_PT, one for O_FT.

    def count(letter):
      same = rasp.Select(rasp.tokens, rasp.Map(lambda _: letter, rasp.tokens), rasp.Comparison.EQ)
      return rasp.SelectorWidth(same)

    task = ProgramTask(
      functools.partial(count, "x"), functools.partial(count, "y"), name="count", vocab=("x", "y", "z"),
      num_letters=5, answer_position=1, correlation=offset(1),
    )

Tracr's interpreter runs both programs on every string, or on many random ones, into a table that is drawn from under
jit. Counter and Max-identifier (`tracr_tasks`) have samplers of their own instead, for strings too many for a table.
"""

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from tracr.rasp import rasp

from finetune_wrappers.rules import FLAG, SEED, Checked, Many, Rule, number, one_of, ruled, whole
from finetune_wrappers.tasks.strings import BOS, NAME, PAD, in_order
from finetune_wrappers.tasks.tables import Table, TableTask, hold_out, places_of
from finetune_wrappers.tasks.task import Numerical
from finetune_wrappers.types import InputError, canonical_json

Program = Callable[[], rasp.SOp]
_TOKEN = Rule("a number or a word", lambda token: isinstance(token, int | float | str) and token not in (BOS, PAD))
_DIGITS = 6  # numbers are equal up to here: 2/3 has two roundings, as 1 - 1/3 and as 2/3


def offset(q: float) -> Callable[[Sequence, Any, Any], bool]:
  """The correlation r(x, O_FT) - r(x, O_PT) = q, at every position where answers are read."""

  def carries(string: Sequence, answer_pt: Any, answer_ft: Any) -> bool:
    del string
    return bool(np.all(np.isclose(np.subtract(answer_ft, answer_pt, dtype=float), q)))

  return carries


@dataclasses.dataclass(frozen=True)
class ProgramTask(TableTask, Checked):
  """A task from two RASP programs; see `Task`.

  Strings on which a program is undefined where the answer is read (nothing selected, a division by zero) are left out.
  A numerical program is answered by the nearest of the values that occur, which are the labels.

  Attributes:
    program_pt: makes the program of O_PT. A function, since Tracr may compile a program otherwise once it has been
      looked at; one program with two operands is `functools.partial(program, operand)` twice.
    program_ft: the same for O_FT; both categorical or both numerical.
    name: of the task, in rows and keys.
    vocab: the tokens, numbers or words or both.
    num_letters: tokens of a string, all of one length.
    answer_position: where the answer is read, from 1 for the first letter; several as a tuple. None is every letter,
      as a RASP program answers at each; a program that says the same everywhere trains faster at one.
    correlation: (string, answer_pt, answer_ft) -> whether it carries the spurious correlation, such as `offset(1)`;
      answers are tuples where there are several positions. None: the task has no correlation.
    sampler: NumPy generator -> one string; None draws uniform strings.
    max_strings: up to so many strings there are, all are in the table; else so many draws, equal ones counted.
    held_out: share of the table's strings that are tested on and never trained on, of those with the correlation and
      of the others.
    distinct_answers_in_test: whether the test set at C_Te = 0 leaves out strings whose two answers are the same.
    seed: of the draws, and of which strings are held out.
    digest: hash of the table and of how the programs are built, for keys.
  """

  program_pt: dataclasses.InitVar[Program]
  program_ft: dataclasses.InitVar[Program]
  _: dataclasses.KW_ONLY
  name: str = ruled(NAME)
  vocab: tuple[Hashable, ...] = ruled(Many(_TOKEN))
  num_letters: int = ruled(whole(1))
  answer_position: Any = None
  correlation: dataclasses.InitVar[Callable[[Sequence, Any, Any], bool] | None] = None
  sampler: dataclasses.InitVar[Callable[[np.random.Generator], Sequence] | None] = None
  max_strings: int = ruled(whole(2), 20_000)
  held_out: float = ruled(number("above 0, below 1,", lambda share: 0 < share < 1), 0.2)
  distinct_answers_in_test: bool = ruled(FLAG, True)
  seed: int = ruled(SEED, 0)
  digest: str = dataclasses.field(init=False)

  def __post_init__(self, program_pt, program_ft, correlation, sampler):
    super().__post_init__()
    if self.answer_position is None:
      self._set(answer_position=tuple(range(1, self.num_letters + 1)))
    letter = whole(1, self.num_letters)
    (Many(letter) if isinstance(self.answer_position, tuple) else letter).check("answer_position", self.answer_position)
    self._set(_programs={"pt": program_pt, "ft": program_ft}, correlated=correlation is not None)
    programs = [self.program("pt"), self.program("ft")]
    numerical = rasp.is_numerical(programs[0])
    if rasp.is_numerical(programs[1]) != numerical:
      raise InputError("program_ft: one program is numerical, the other categorical; make both the same")
    drawn = self._drawn(sampler)
    found = ((string, *(self._answer(program, string, numerical) for program in programs)) for string in drawn)
    rows = [(string, pt, ft) for string, pt, ft in found if pt and ft]
    if not rows:
      raise InputError("program_pt: no string has an answer for both operands where it is read (answer_position)")
    labels = in_order({value for _, pt, ft in rows for value in (*pt, *ft)})
    table = Table(
      strings=places_of([string for string, _, _ in rows], self.vocab),
      weights=np.array([drawn[string] for string, _, _ in rows]),
      labels_pt=self._at_positions(places_of([pt for _, pt, _ in rows], labels)),
      labels_ft=self._at_positions(places_of([ft for _, _, ft in rows], labels)),
      carries=np.array([self._carries(correlation, *row) for row in rows], bool),
      held_out=np.zeros(len(rows), bool),
    )
    hold_out(table, self.held_out, self.seed)
    if numerical:  # read as the nearest label: half-way to a boundary is still right
      self._set(output=Numerical(labels), tolerance=float(np.diff(labels).min(initial=4e-4)) / 4)
    self._set(labels=labels, _table=table, digest=_digest(table, labels, programs))
    self.check_classes()

  def program(self, operand: str, *, reading: str = "literal") -> rasp.SOp:
    """The RASP program of one operand, `pt` or `ft`, made afresh; it has one reading."""
    one_of("literal").check("reading", reading)
    make = self._programs[operand]
    if isinstance(make, rasp.SOp):
      raise InputError(f"program_{operand}: is a program; give a function that makes it, such as lambda: program")
    return make()

  def _drawn(self, sampler: Callable[[np.random.Generator], Sequence] | None) -> Counter:
    """How often each string was drawn; once each if these are all that there are."""
    length, vocab, rng = self.num_letters, self.vocab, np.random.default_rng(self.seed)
    if sampler is None and len(vocab) ** length <= self.max_strings:
      return Counter(itertools.product(vocab, repeat=length))
    draw = sampler or (lambda rng: [vocab[i] for i in rng.integers(len(vocab), size=length)])
    drawn = Counter(tuple(draw(rng)) for _ in range(self.max_strings))
    for string in drawn:
      if len(string) != length or not set(string) <= set(vocab):
        raise InputError(f"sampler: {string} is not allowed; use {length} (num_letters) tokens of vocab")
    return drawn

  def _answer(self, program: rasp.SOp, string: tuple, numerical: bool) -> tuple | None:
    """Where it is read, by Tracr's interpreter; None if the program is undefined there."""
    try:
      values = program(list(string))
    except (ArithmeticError, TypeError, ValueError):
      return None
    found = [values[position - 1] for position in np.atleast_1d(self.answer_position)]
    if None in found or (numerical and not np.isfinite(found).all()):
      return None
    if numerical:
      return tuple(round(float(value), _DIGITS) for value in found)
    return tuple(value.item() if isinstance(value, np.generic) else value for value in found)

  def _carries(self, correlation: Callable | None, string: tuple, answer_pt: tuple, answer_ft: tuple) -> bool:
    if correlation is None:
      return False
    if isinstance(self.answer_position, tuple):
      return bool(correlation(string, answer_pt, answer_ft))
    return bool(correlation(string, answer_pt[0], answer_ft[0]))

  def _at_positions(self, labels_NxP: np.ndarray) -> np.ndarray:
    return labels_NxP if isinstance(self.answer_position, tuple) else labels_NxP[:, 0]

  def _set(self, **values: Any) -> None:
    for name, value in values.items():
      object.__setattr__(self, name, value)


def _digest(table: Table, labels: tuple, programs: list[rasp.SOp]) -> str:
  """16 hexadecimal digits of all strings and answers, and of how the programs are built."""
  found = hashlib.sha256(canonical_json([labels, [_outline(program) for program in programs]]).encode())
  for array in table:
    found.update(array.astype("<i4").tobytes())
  return found.hexdigest()[:16]


def _outline(program: rasp.SOp) -> list:
  """Kind, name, constants, encoding and parts of each step; functions cannot be compared, but their answers can."""
  steps: list = []
  places: dict[int, int] = {}

  def visit(step: rasp.RASPExpr) -> int:
    if id(step) not in places:
      parts = [visit(child) for child in step.children]
      constants = [str(vars(step).get(name)) for name in ("default", "fill", "value")]
      comparison = [value.value for value in vars(step).values() if isinstance(value, rasp.Comparison)]
      # Answers do not show it. Only the encoding that is not Tracr's default, so that older keys stay valid.
      encoding = ["numerical"] if isinstance(step, rasp.SOp) and rasp.is_numerical(step) else []
      places[id(step)] = len(steps)
      steps.append([type(step).__name__, step.name, constants, comparison, parts, *encoding])
    return places[id(step)]

  visit(program)
  return steps
