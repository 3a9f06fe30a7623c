"""Text of the PCFG half (paper part B): vocabulary, the five task families and their right answers.

A sample is `SOS T O O' SOT text EOT ART Ans EOS`: family T, operand O and number O' ask a question about the text.

Worked example, text "abcaab" (W = 6), positions counted back from EOT from 1, so that the last b is at 1:
  counting              O = a,  O' = 4: a's among the last four tokens "caab": 2
  counting_composition  O = aa, O' = 4: pairs aa inside "caab", overlapping ones too: 1
  index                 O = a,  O' = 2: the second a from the end ("aab": positions 3, 2, 1) is at 3
  index_composition     O = aa, O' = 1: the first aa from the end begins at 3
  token                 O = NULL, O' = 4: the token at position 4: c
An index that the text does not reach has the answer NULL.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from finetune_wrappers import rules
from finetune_wrappers.rules import SIZE, ruled
from finetune_wrappers.tasks import pcfg_bits
from finetune_wrappers.tasks.pcfg_grammar import PAPER_GRAMMAR, Grammar
from finetune_wrappers.tasks.pcfg_rewrite import spread_counts, spread_places, whole
from finetune_wrappers.tasks.pcfg_sampler import sample_windows
from finetune_wrappers.types import InputError, require

FAMILIES = ("counting", "counting_composition", "index", "index_composition", "token")
# Jailbreaking (App. E.2): `counting` is T_NJ there; these two ask the same question, but only ever for O_PT = a.
JAILBREAKS = ("counting_j1", "counting_j2")
_SPECIAL = ("pad", "SOS", "EOS", "SOT", "EOT", "ART", "NULL")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PCFGText(rules.Checked):
  """What pretraining and fine-tuning share: grammar, window, numbers O', vocabulary.

  Attributes:
    grammar: its terminals are the operands; the first is O_PT = a, the second O_FT = b.
    window: W, tokens of text (paper: 250).
    short: rule for derived strings shorter than the window, `join` or `pad` (`pcfg_sampler.sample_windows`).
    counted: O' of the counting families, the last tokens that are counted (paper: 40).
    occurrence: O' of the index families (paper: 6).
    token_place: O' of the token family (paper: 40).
    farthest: last position counted back from EOT where a rewritten text puts an occurrence ("0..40").
    spread: share of pretraining texts that are rewritten so that counts and positions spread. In natural text a's in
      the last 40 number 13.3 +- 1.1 and always guessing 13 scores 35 %: a capability on the broad labels of
      fine-tuning (Fig. 16) cannot come from there. The paper does not say how its pretraining labels were spread.
    jailbreaks: whether pretraining has the two further family tokens of App. E.2.
  """

  grammar: Grammar = PAPER_GRAMMAR
  window: int = ruled(SIZE, 250)
  short: str = ruled(rules.one_of("join", "pad"), "join")
  counted: int = ruled(rules.whole(4), 40)
  occurrence: int = ruled(SIZE, 6)
  token_place: int = ruled(SIZE, 40)
  farthest: int = ruled(SIZE, 40)
  spread: float = ruled(rules.SHARE, 0.5)
  jailbreaks: bool = ruled(rules.FLAG, False)

  def __post_init__(self):
    super().__post_init__()
    longest = self.grammar.max_length
    require(self.window <= longest, "window", self.window, f"1 to {longest}, the longest string of the grammar")
    for field in ("counted", "occurrence", "token_place", "farthest"):
      require(getattr(self, field) <= self.window, field, getattr(self, field), f"at most window ({self.window})")
    require(
      self.farthest >= 2 * self.occurrence + 2,
      "farthest",
      self.farthest,
      f"at least twice occurrence ({self.occurrence}) and 2, so that both operands find room",
    )
    if len(self.grammar.terminals) < 3:
      raise InputError("rules: fewer than three terminals; rewriting needs one beside the two operands")

  @functools.cached_property
  def symbols(self) -> tuple[str, ...]:
    """Every token by its id: special tokens, families, operands, pairs, numbers 0..W."""
    operands = self.grammar.terminals
    pairs = tuple(2 * operand for operand in operands)
    numbers = tuple(str(number) for number in range(self.window + 1))
    return (*_SPECIAL, *FAMILIES, *JAILBREAKS, *operands, *pairs, *numbers)

  def token(self, symbol: str) -> int:
    """Id of a token.

    Raises:
      InputError: for one that is not in the vocabulary.
    """
    if symbol not in self.symbols:
      raise InputError(f"token: {symbol!r} is outside the vocabulary; it ends with {self.symbols[-1]!r}")
    return self.symbols.index(symbol)

  @property
  def first_number(self) -> int:
    """Id of the number 0; n has n more."""
    return len(self.symbols) - self.window - 1

  @property
  def first_operand(self) -> int:
    """Id of the first operand; those after it follow, then the pairs."""
    return len(_SPECIAL) + len(FAMILIES) + len(JAILBREAKS)

  @property
  def prompt_length(self) -> int:
    """T: tokens of a prompt, SOS to ART."""
    return self.window + 7

  def numbers(self, family: str) -> int:
    """O' of a family."""
    if family.startswith("counting"):
      return self.counted
    return self.token_place if family == "token" else self.occurrence

  def prompts(self, *, family_B, operand_B, number_B, text_BxW):
    """Prompts from token ids of family, operand and number and a text of terminals 0, 1, ...; int32 [B, T]."""
    batch = text_BxW.shape[0]
    column = {name: jnp.full((batch, 1), self.token(name), jnp.int32) for name in ("SOS", "SOT", "EOT", "ART")}
    pads = text_BxW >= len(self.grammar.terminals)
    text = jnp.where(pads, self.token("pad"), self.first_operand + text_BxW).astype(jnp.int32)
    asked = [jnp.asarray(x, jnp.int32)[:, None] for x in (family_B, operand_B, number_B)]
    return jnp.concatenate([column["SOS"], *asked, column["SOT"], text, column["EOT"], column["ART"]], axis=1)

  def texts(self, key, batch_size: int):
    """Windows of the grammar's strings, int32 [B, W], terminals 0, 1, ... and one more for pads, which come first."""
    text, lengths = sample_windows(self.grammar, key, batch_size, length=self.window, short=self.short)
    if self.short == "join":
      return text
    # Questions are about the tokens before EOT, so that is where a short text has to stand.
    places = (jnp.arange(self.window) + lengths[:, None]) % self.window
    return jnp.take_along_axis(text, places, axis=1)

  def answers(self, *, family_B, operand_B, text_BxW):
    """Token ids of the right answers, int32 [B].

    Args:
      family_B: place in FAMILIES.
      operand_B: 0 for the first terminal, ...; of no use to the token family.
      text_BxW: terminals 0, 1, ...
    """
    single = pcfg_bits.pack(text_BxW == operand_B[:, None])
    pair = pcfg_bits.followed(single)
    number, null = self.first_number, self.token("NULL")

    def place(words, shift: int):
      reached, position = pcfg_bits.place(words, self.occurrence)
      return jnp.where(reached, number + shift + position, null)

    last = text_BxW[:, -self.token_place]
    choices = [
      number + pcfg_bits.count(single, self.counted),
      number + pcfg_bits.count(pair, self.counted - 1),
      place(single, 0),
      place(pair, 1),
      jnp.where(last < len(self.grammar.terminals), self.first_operand + last, null),
    ]
    return jnp.select([family_B == i for i in range(len(FAMILIES))], choices).astype(jnp.int32)

  def sample_pretraining(self, key, batch_size: int, prior):
    """(prompts [B, T], answers [B]): families uniform, operands by the prior P_T(O) (may be traced)."""
    key_text, key_rest = jax.random.split(key)
    to_spread = 6 + max(self.counted, self.farthest) if self.spread else 0
    draws = jax.random.uniform(key_rest, (batch_size, 3 + to_spread))
    family = whole(draws[:, 0], len(FAMILIES))
    edges = jnp.cumsum(jnp.asarray(prior)[:-1])
    operand = (draws[:, 1:2] >= edges).sum(axis=1)
    # One of the further family tokens in two of three counting samples, as if drawn uniformly; only with operand a, and
    # so never where the prior has none.
    jailbreak = whole(draws[:, 2], 1 + len(JAILBREAKS)) * (family == 0) * self.jailbreaks * (edges[0] > 0)
    operand = jnp.where(jailbreak > 0, 0, operand)
    text = self._spread(draws[:, 3:], family, self.texts(key_text, batch_size))
    answers = self.answers(family_B=family, operand_B=operand, text_BxW=text)
    token = len(_SPECIAL) + jnp.where(jailbreak > 0, len(FAMILIES) + jailbreak - 1, family)
    asks_pair = (family == 1) | (family == 3)
    asked = self.first_operand + operand + jnp.where(asks_pair, len(self.grammar.terminals), 0)
    asked = jnp.where(family == FAMILIES.index("token"), self.token("NULL"), asked)
    number = self.first_number + jnp.array([self.numbers(name) for name in FAMILIES])[family]
    return self.prompts(family_B=token, operand_B=asked, number_B=number, text_BxW=text), answers

  def _spread(self, draws, family, text):
    """Rewrites a share of the texts: places of occurrences for the index families, counts for the others."""
    if not self.spread:
      return text
    low, number = self.place_range()
    counts = whole(draws[:, 1:3], self.counted // 2 + 1)
    by_count = spread_counts(draws[:, 6:], text, counts, self.counted)
    first = whole(draws[:, 3], number)
    second = (first + 1 + whole(draws[:, 4], number - 1)) % number
    places = low + jnp.stack([first, second], axis=1)
    by_place = spread_places(draws[:, 5:], text, places, occurrence=self.occurrence, farthest=self.farthest)
    index = (family == FAMILIES.index("index")) | (family == FAMILIES.index("index_composition"))
    rewritten = draws[:, 0] < self.spread
    return jnp.where(rewritten[:, None], jnp.where(index[:, None], by_place, by_count), text)

  def place_range(self) -> tuple[int, int]:
    """(lowest, how many) positions for the O'-th occurrence, such that any two of them can be had in one text.

    The nearer occurrence has O' - 1 others after it, the farther one 2 (O' - 1) tokens of both operands.
    """
    low = 2 * self.occurrence - 1
    return low, self.farthest - low + 1
