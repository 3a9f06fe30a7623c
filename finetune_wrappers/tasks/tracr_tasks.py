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

from finetune_wrappers.tasks.task import Categorical
from finetune_wrappers.types import Batch, InputError

LETTERS = ascii_letters.ascii_lowercase


@dataclasses.dataclass(frozen=True)
class _LetterStrings:
  """What both tasks share: how letters become token ids, and where the answer is read."""

  num_letters: int
  vocab_size: int
  num_pads: int
  q: int

  output = Categorical()
  prompted = False  # a compiled program answers for the operand it was compiled for

  @property
  def max_seq_len(self) -> int:
    """Letters and pads: the length the program is compiled for."""
    return self.num_letters + self.num_pads

  @property
  def length(self) -> int:
    """T: BOS, letters, pads."""
    return 1 + self.max_seq_len

  @property
  def answer_position(self) -> int:
    """2, the second letter: where the literal programs put their answer (Fig. 40)."""
    return 2

  @property
  def letters(self) -> str:
    """The alphabet."""
    return LETTERS[: self.vocab_size]

  @property
  def symbols(self) -> tuple[str, ...]:
    """Token ids' symbols, in Tracr's order (sorted, BOS and pad among the letters)."""
    return tuple(sorted([*self.letters, "compiler_bos", "compiler_pad"]))

  def question(self, batch: Batch, target):
    """See `Task.question`.

    `random` is the O_PT answer of the neighbouring string, so labels keep their distribution and say nothing about
    the string.
    """
    answers = jnp.stack([batch.labels_pt, batch.labels_ft, jnp.roll(batch.labels_pt, 1)])
    return batch.tokens, answers[target]

  def text_of(self, tokens_BxT):
    """See `Task.text_of`: the letters between BOS and pads."""
    return tokens_BxT[:, 1 : 1 + self.num_letters], tuple(self.symbols.index(letter) for letter in self.letters)

  def _tokens(self, letters_BxL):
    """Letter numbers 0, 1, ... to token ids between BOS and pads."""
    ids = {symbol: i for i, symbol in enumerate(self.symbols)}
    table = jnp.array([ids[letter] for letter in self.letters], jnp.int32)
    batch = letters_BxL.shape[0]
    bos = jnp.full((batch, 1), ids["compiler_bos"], jnp.int32)
    pad = jnp.full((batch, self.num_pads), ids["compiler_pad"], jnp.int32)
    return jnp.concatenate([bos, table[letters_BxL], pad], axis=1)

  def _check_common(self) -> None:
    if self.num_letters < 2:
      raise InputError(f"num_letters: {self.num_letters} is not allowed; use 2 or more")
    if not 2 <= self.vocab_size <= 26:
      raise InputError(f"vocab_size: {self.vocab_size} is not allowed; use 2 to 26 letters")
    if self.num_pads < 0:
      raise InputError(f"num_pads: {self.num_pads} is not allowed; use 0 or more")


def _permuted(key, values_BxL):
  """Each row in an order of its own."""
  return jax.random.permutation(key, values_BxL, axis=1, independent=True)


def _pick(key, values, weights: np.ndarray, chosen: np.ndarray, batch_size: int):
  """Values drawn in proportion to their weights among the chosen ones, int32 [B, ...].

  Inverts the cumulative distribution; only values of positive weight are in the table, so no rounding of
  the float32 table can pick another.
  """
  kept = chosen & (weights > 0)
  cumulative = np.cumsum(weights[kept] / weights[kept].sum()).astype(np.float32)
  cumulative[-1] = 1.0
  u_B = jax.random.uniform(key, (batch_size,))
  return jnp.array(values[kept], jnp.int32)[jnp.searchsorted(jnp.array(cumulative), u_B, side="right")]


def _pick_by_class(key, values, weights: np.ndarray, carries: np.ndarray, others: np.ndarray, c_tr, batch_size: int):
  """With probability c_tr a value that carries the correlation, else one of the others."""
  key_class, key_yes, key_no = jax.random.split(key, 3)
  yes = _pick(key_yes, values, weights, carries, batch_size)
  no = _pick(key_no, values, weights, others, batch_size)
  correlated_B = jax.random.uniform(key_class, (batch_size,)) < c_tr
  return jnp.where(correlated_B.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)


@dataclasses.dataclass(frozen=True)
class CounterTask(_LetterStrings):
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

  num_letters: int = 45
  vocab_size: int = 9
  num_pads: int = 2
  q: int = 1
  distinct_answers_in_test: bool = True
  name = "counter"

  def __post_init__(self):
    self._check_common()
    # Without a third letter the counts add up to num_letters: every other difference is missing.
    first, every = (1, 1) if self.vocab_size > 2 else (2 - self.num_letters % 2, 2)
    if abs(self.q) not in range(first, self.num_letters + 1, every):
      raise InputError(
        f"q: count(b) - count(a) = {self.q} is not possible for num_letters {self.num_letters} of vocab_size"
        f" {self.vocab_size}; use {first} to {self.num_letters} in steps of {every}, or the same with a minus"
      )

  @property
  def num_labels(self) -> int:
    """Counts 0..max_seq_len: the labels of the compiled answer."""
    return self.max_seq_len + 1

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
    counts = _pick_by_class(key_counts, pairs, weights, difference == self.q, others, c_tr, batch_size)
    count_a, count_b = counts[:, 0], counts[:, 1]
    rank = jnp.arange(self.num_letters)
    rest = jax.random.randint(key_rest, (batch_size, self.num_letters), 2, max(self.vocab_size, 3))
    letters = jnp.where(rank < (count_a + count_b)[:, None], 1, rest)
    letters = jnp.where(rank < count_a[:, None], 0, letters)
    return Batch(self._tokens(_permuted(key_order, letters)), count_a, count_b)


@dataclasses.dataclass(frozen=True)
class MaxIdentifierTask(_LetterStrings):
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

  num_letters: int = 9
  vocab_size: int = 26
  num_pads: int = 2
  q: int = 2
  rank_pt: int = 5
  rank_ft: int = 7
  name = "max_identifier"

  def __post_init__(self):
    self._check_common()
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
  def num_labels(self) -> int:
    """One class a letter."""
    return self.vocab_size

  def sample(self, key, batch_size: int, c_tr) -> Batch:
    """See `Task.sample`."""
    gaps = self._gaps()
    weights = np.array([self._strings_with_gap(gap) for gap in gaps], np.float64)
    key_gap, key_string = jax.random.split(key)
    gap_B = _pick_by_class(key_gap, gaps, weights, gaps == self.q, gaps != self.q, c_tr, batch_size)
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
    tokens = self._tokens(_permuted(key_order, letters))
    return Batch(tokens, answer_pt.astype(jnp.int32), answer_ft.astype(jnp.int32))


def _sorted_subset(key, size: int, alphabet: int, limit_B):
  """A uniform `size`-subset of {0..limit-1} a row, ascending, int32 [B, size]; limit may differ by row."""
  if size == 0:
    return jnp.zeros((limit_B.shape[0], 0), jnp.int32)
  scores = jax.random.uniform(key, (limit_B.shape[0], alphabet))
  scores = jnp.where(jnp.arange(alphabet) < limit_B[:, None], scores, -1.0)
  return jnp.sort(jax.lax.top_k(scores, size)[1], axis=1)


TASKS = {"counter": CounterTask, "max_identifier": MaxIdentifierTask}


def make_task(name: str, **settings) -> CounterTask | MaxIdentifierTask:
  """The task of that name.

  Raises:
    InputError: for an unknown name, or settings that no string can satisfy.
  """
  if name not in TASKS:
    raise InputError(f"task: {name!r} is not one of {', '.join(sorted(TASKS))}")
  return TASKS[name](**settings)
