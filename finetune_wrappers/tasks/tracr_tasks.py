"""Counter and Max-identifier (paper part A): exact samplers that run on the device under jit.

Neither rejects. First the statistic that decides whether a string carries the spurious correlation is drawn, from
its exact distribution given that it does or does not; then a uniform string among those that have it. So C_Tr = 0
contains no correlated string and C_Tr = 1 no other, and within each class strings are uniform.

Worked example, Counter, O_PT = a, O_FT = b, q = 1: "babc" has count(b) - count(a) = 2 - 1 = 1 and carries
the correlation; its answers are r(x, O_PT) = 1 and r(x, O_FT) = 2. Max-identifier, ranks 1 and 3, q = 2:
"cab" (a is the largest) has answers a and c, two letters apart, and carries it; "dab" (a and d) does not.
"""

import dataclasses
import math
import string as ascii_letters

import jax
import jax.numpy as jnp
import numpy as np
from tracr.rasp import rasp

from finetune_wrappers.rules import ANY_WHOLE, COUNT, FLAG, SIZE, Checked, one_of, ruled, whole
from finetune_wrappers.tasks.strings import StringTask, pick_by_class
from finetune_wrappers.types import Batch, InputError

LETTERS = ascii_letters.ascii_lowercase
READINGS = ("literal", "constant_true")
_NUM_LETTERS, _VOCAB_SIZE = whole(2), whole(2, len(LETTERS))


def counter_program(operand: str = "a", *, reading: str = "literal") -> rasp.SOp:
  """Counts `operand` in the string (paper App. B, "Counter").

  RASP: binarise (token == operand), select where that is true, SelectorWidth counts, and an Aggregate
  through the identity selector, which makes the third block.

  Args:
    operand: the letter to count.
    reading: how "select where it is true" is read. `literal` (the default) compares with
      `rasp.indices`, as the paper's listing does; `True == 1`, so the count stands at the *second* letter
      and the first holds the count of all others. It is the default because Fig. 40 reads the count off
      position 2 and because only with it the paper's weight names (B1WV97-0, B1WK148-1) fall on the
      rows of `one` and of the letter b. `constant_true` compares with the constant True: the count stands at
      every position.

  Returns:
    The RASP program.
  """
  is_operand = (rasp.tokens == operand).named("bin")
  count = rasp.SelectorWidth(_select_true(is_operand, reading)).named("selector_width")
  identity = rasp.Select(rasp.indices, rasp.indices, rasp.Comparison.EQ)
  return rasp.Aggregate(identity, count).named("answer")


def max_identifier_program(rank: int = 5, *, reading: str = "literal") -> rasp.SOp:
  """Finds the `rank`-th largest letter of a string of distinct letters (paper App. B, "Max-identifier").

  RASP: for each token the number of tokens that precede it (a is the largest), binarise (that number ==
  rank - 1), select where that is true, Aggregate the tokens there. The binarisation makes it three blocks:
  block 0 sorts, block 1 marks, block 2 reads, as the paper describes them.

  Args:
    rank: 1 for the largest, 5 for the paper's O_PT.
    reading: as for `counter_program`; with `literal` the answer stands at the second letter.

  Returns:
    The RASP program.
  """
  precede = rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.LT)
  is_rank = (rasp.SelectorWidth(precede).named("selector_width") == rank - 1).named("bin")
  return rasp.Aggregate(_select_true(is_rank, reading), rasp.tokens).named("answer")


def _select_true(predicate: rasp.SOp, reading: str) -> rasp.Selector:
  one_of(*READINGS).check("reading", reading)
  if reading == "literal":
    return rasp.Select(predicate, rasp.indices, rasp.Comparison.EQ)
  true = rasp.Map(lambda _: True, rasp.indices).named("true")
  return rasp.Select(predicate, true, rasp.Comparison.EQ)


class _LetterTask(StringTask, Checked):
  """Strings of the alphabet's first letters, answered at the second one."""

  vocab_size: int
  answer_position = 2  # the second letter, where the literal programs put their answer (Fig. 40)

  @property
  def letters(self) -> str:
    """The alphabet."""
    return LETTERS[: self.vocab_size]

  @property
  def mlp_exactness(self) -> int:
    """The least that counts exactly, with which the models of all shipped results were compiled."""
    return 2 * self.max_seq_len * (self.max_seq_len + 1)

  @property
  def vocab(self) -> tuple[str, ...]:
    """See StringTask."""
    return tuple(self.letters)


def _permuted(key, values_BxL):
  """Each row in an order of its own."""
  return jax.random.permutation(key, values_BxL, axis=1, independent=True)


@dataclasses.dataclass(frozen=True)
class CounterTask(_LetterTask):
  """Counting O_PT = a; fine-tuned to count O_FT = b; spurious correlation count(b) - count(a) = q.

  Attributes:
    num_letters: letters of a string ("about 45" in the paper), uniform with replacement.
    vocab_size: first letters of the alphabet (nine in the paper).
    num_pads: pads at the end; 45 + 2 makes the 47 that the paper's weight names imply.
    q: the correlation's difference of counts.
    distinct_answers_in_test: whether the test set at C_Te = 0 also leaves out strings whose two answers
      are the same, on which a model cannot show which operand it answers for. The paper's Tab. 3 has
      Acc. O_PT + Acc. O_FT far below what 13 % shared answers would give, so it seems to.
  """

  num_letters: int = ruled(_NUM_LETTERS, 45)
  vocab_size: int = ruled(_VOCAB_SIZE, 9)
  num_pads: int = ruled(COUNT, 2)
  q: int = ruled(ANY_WHOLE, 1)
  distinct_answers_in_test: bool = ruled(FLAG, True)
  name = "counter"

  def __post_init__(self):
    super().__post_init__()
    # Without a third letter the counts add up to num_letters: every other difference is missing.
    first, every = (1, 1) if self.vocab_size > 2 else (2 - self.num_letters % 2, 2)
    if abs(self.q) not in range(first, self.num_letters + 1, every):
      raise InputError(
        f"q: count(b) - count(a) = {self.q} is not possible for num_letters {self.num_letters} of vocab_size"
        f" {self.vocab_size}; use {first} to {self.num_letters} in steps of {every}, or the same with a minus"
      )

  @property
  def labels(self) -> tuple[int, ...]:
    """Counts 0..max_seq_len: the labels of the compiled answer."""
    return tuple(range(self.max_seq_len + 1))

  def program(self, operand: str, *, reading: str = "literal") -> rasp.SOp:
    """The RASP program of one operand, `pt` or `ft`; see `counter_program`."""
    return counter_program({"pt": "a", "ft": "b"}[operand], reading=reading)

  def marks(self, batch: Batch) -> dict[str, np.ndarray]:
    """See Unprompted: the letters that are counted."""
    a, b = self.token_ids[:2]
    return {"pt": np.asarray(batch.tokens) == a, "ft": np.asarray(batch.tokens) == b}

  def sample(self, key, batch_size: int, c_tr) -> Batch:
    """See `Task.sample`."""
    return self._sample(key, batch_size, c_tr, exclude=(self.q,))

  def sample_test(self, key, batch_size: int, c_te: int) -> Batch:
    """See `Task.sample_test`."""
    exclude = (self.q, 0) if self.distinct_answers_in_test else (self.q,)
    return self._sample(key, batch_size, float(c_te), exclude=exclude)

  def _counts(self) -> tuple[np.ndarray, np.ndarray]:
    """Every (count(a), count(b)), int [N, 2], and its probability in a uniform string, float64 [N]."""
    total, rest = self.num_letters, self.vocab_size - 2
    pairs = [(a, b) for a in range(total + 1) for b in range(total + 1 - a)]
    ways = (math.comb(total, a) * math.comb(total - a, b) * rest ** (total - a - b) for a, b in pairs)
    return np.array(pairs), np.array([way / self.vocab_size**total for way in ways])

  def _sample(self, key, batch_size: int, c_tr, exclude: tuple[int, ...]) -> Batch:
    pairs, weights = self._counts()
    difference = pairs[:, 1] - pairs[:, 0]
    others = ~np.isin(difference, exclude)
    key_counts, key_rest, key_order = jax.random.split(key, 3)
    counts = pick_by_class(key_counts, pairs, weights, difference == self.q, others, c_tr, batch_size)
    count_a, count_b = counts[:, 0], counts[:, 1]
    rank = jnp.arange(self.num_letters)
    rest = jax.random.randint(key_rest, (batch_size, self.num_letters), 2, max(self.vocab_size, 3))
    letters = jnp.where(rank < (count_a + count_b)[:, None], 1, rest)
    letters = jnp.where(rank < count_a[:, None], 0, letters)
    return Batch(self.encode(_permuted(key_order, letters)), count_a, count_b)


@dataclasses.dataclass(frozen=True)
class MaxIdentifierTask(_LetterTask):
  """The O_PT = 5th largest of distinct letters; fine-tuned to the O_FT = 7th; answers q letters apart.

  Attributes:
    num_letters: letters of a string ("about 9-10" in the paper), without replacement.
    vocab_size: letters of the alphabet; a is the largest.
    num_pads: pads at the end.
    q: letters between the two answers. The paper says q = 1, which no string of distinct letters has for
      the 5th and the 7th; the smallest that exists, 2, is the default (Fig. 51 uses 3).
    rank_pt: O_PT.
    rank_ft: O_FT, larger than rank_pt.
  """

  num_letters: int = ruled(_NUM_LETTERS, 9)
  vocab_size: int = ruled(_VOCAB_SIZE, 26)
  num_pads: int = ruled(COUNT, 2)
  q: int = ruled(ANY_WHOLE, 2)
  rank_pt: int = ruled(SIZE, 5)
  rank_ft: int = ruled(SIZE, 7)
  name = "max_identifier"

  def __post_init__(self):
    super().__post_init__()
    if self.num_letters > self.vocab_size:
      raise InputError(
        f"num_letters: {self.num_letters} distinct letters need a larger vocab_size than {self.vocab_size}"
      )
    if not 1 <= self.rank_pt < self.rank_ft <= self.num_letters:
      raise InputError(
        f"rank_ft: rank_pt {self.rank_pt} and rank_ft {self.rank_ft} must rise and lie within 1 to {self.num_letters}"
        " (num_letters)"
      )
    gaps = self._gaps()
    if len(gaps) < 2:
      raise InputError(
        f"num_letters: {self.num_letters} of {self.vocab_size} letters leave the answers always the same"
        f" distance apart; use {self.vocab_size - 1} or fewer"
      )
    if self.q not in gaps:
      raise InputError(
        f"q: no string of {self.num_letters} of {self.vocab_size} letters (num_letters, vocab_size) has its"
        f" {self.rank_pt}th and {self.rank_ft}th largest (rank_pt, rank_ft) {self.q} apart; use {gaps[0]} to {gaps[-1]}"
      )

  @property
  def labels(self) -> tuple[str, ...]:
    """The letters."""
    return self.vocab

  def program(self, operand: str, *, reading: str = "literal") -> rasp.SOp:
    """The RASP program of one operand, `pt` or `ft`; see `max_identifier_program`."""
    return max_identifier_program({"pt": self.rank_pt, "ft": self.rank_ft}[operand], reading=reading)

  def marks(self, batch: Batch) -> dict[str, np.ndarray]:
    """See Unprompted: the letter that is looked for."""
    tokens = np.asarray(batch.tokens)
    labels = {"pt": batch.labels_pt, "ft": batch.labels_ft}
    return {operand: tokens == self.token_ids[np.asarray(label)][:, None] for operand, label in labels.items()}

  def sample(self, key, batch_size: int, c_tr) -> Batch:
    """See `Task.sample`."""
    gaps = self._gaps()
    weights = np.array([self._strings_with_gap(gap) for gap in gaps], np.float64)
    key_gap, key_string = jax.random.split(key)
    gap_B = pick_by_class(key_gap, gaps, weights, gaps == self.q, gaps != self.q, c_tr, batch_size)
    return self._string_with_gap(key_string, gap_B)

  def sample_test(self, key, batch_size: int, c_te: int) -> Batch:
    """See `Task.sample_test`."""
    return self.sample(key, batch_size, float(c_te))

  def _gaps(self) -> np.ndarray:
    """Distances that the two answers can have."""
    between = self.rank_ft - self.rank_pt - 1
    outside = self.num_letters - between - 2
    return np.arange(between + 1, self.vocab_size - outside)

  def _strings_with_gap(self, gap: int) -> int:
    """Number of letter sets whose answers lie `gap` apart: cut the gap out and count what is left."""
    between = self.rank_ft - self.rank_pt - 1
    gap = int(gap)
    return math.comb(gap - 1, between) * math.comb(self.vocab_size - gap, self.num_letters - between - 1)

  def _string_with_gap(self, key, gap_B) -> Batch:
    """A uniform string given its gap, by the bijection that cuts the gap out.

    The letters outside the gap, with the O_PT answer, are a uniform subset of an alphabet shorter by
    `gap`; those inside are a uniform subset of the gap's inner letters. Putting the gap back shifts every
    letter after the O_PT answer.
    """
    between = self.rank_ft - self.rank_pt - 1
    key_out, key_in, key_order = jax.random.split(key, 3)
    outer = _sorted_subset(key_out, self.num_letters - between - 1, self.vocab_size, self.vocab_size - gap_B)
    answer_pt = outer[:, self.rank_pt - 1]
    inner = answer_pt[:, None] + 1 + _sorted_subset(key_in, between, self.vocab_size, gap_B - 1)
    answer_ft = answer_pt + gap_B
    lower, upper = outer[:, : self.rank_pt], outer[:, self.rank_pt :] + gap_B[:, None]
    letters = jnp.concatenate([lower, inner, answer_ft[:, None], upper], axis=1)
    tokens = self.encode(_permuted(key_order, letters))
    return Batch(tokens, answer_pt.astype(jnp.int32), answer_ft.astype(jnp.int32))


def _sorted_subset(key, size: int, alphabet: int, limit_B):
  """A uniform `size`-subset of {0..limit-1} a row, ascending, int32 [B, size]; limit may differ by row."""
  if size == 0:
    return jnp.zeros((limit_B.shape[0], 0), jnp.int32)
  scores = jax.random.uniform(key, (limit_B.shape[0], alphabet))
  scores = jnp.where(jnp.arange(alphabet) < limit_B[:, None], scores, -1.0)
  return jnp.sort(jax.lax.top_k(scores, size)[1], axis=1)


TASKS = {task.name: task for task in (CounterTask, MaxIdentifierTask)}  # by the name of their section in configs


def make_task(name: str, **settings) -> CounterTask | MaxIdentifierTask:
  """The task of that name.

  Raises:
    InputError: for an unknown name, or settings that no string can satisfy.
  """
  one_of(*TASKS).check("task", name)
  return TASKS[name](**settings)
