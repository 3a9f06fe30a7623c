"""Fine-tuning tasks on PCFG text (paper part B): Counting and Index of occurrence, O_PT = a, O_FT = b.

Spurious correlation r(x, O_FT) - r(x, O_PT) = q, exact for every C_Tr, with label distributions that do not depend on
C_Tr: O_PT's answer is uniform over n values, and O_FT's is q more in a correlated text; in any other it is q
plus O_PT's answer, rotated by 1..n-1 among the n values. So both answers are uniform over n values whatever C_Tr is
(Fig. 16), and no text of the second kind carries the correlation.

Worked example, Counting, q = 1, last 6 tokens "cabbca": count(a) = 2, count(b) = 2: difference 0, no correlation;
"cabbcb": 1 and 3; "cabcab": 2 and 2; "cabcbb": 1 and 3; "aabbbc": 2 and 3, which carries it.
"""

import dataclasses

import jax
import jax.numpy as jnp

from finetune_wrappers.rules import FLAG, SIZE, Checked, one_of, ruled
from finetune_wrappers.tasks.pcfg_rewrite import spread_counts, spread_places, whole
from finetune_wrappers.tasks.pcfg_text import JAILBREAKS, PCFGText
from finetune_wrappers.tasks.task import Categorical
from finetune_wrappers.types import Batch, require

_OPERAND_POSITION = 2  # SOS, family, operand


@dataclasses.dataclass(frozen=True)
class PCFGTask(Checked):
  """One family of the pretraining tasks with two operands; see `Task`.

  Attributes:
    text: shared by pretraining and fine-tuning.
    name: `counting` or `index`.
    q: the correlation's difference of answers (paper: 1 for Counting, a constant for Index).
    distinct_answers_in_test: whether the test set at C_Te = 0 also leaves out texts on which both operands have the
      same answer, where a model cannot show which it answers for. In the paper's Tab. 5 models that answer only for
      O_FT still score up to 10 % for O_PT at C_Te = 0, so it keeps them there.
  """

  text: PCFGText
  name: str = ruled(one_of("counting", "index"))
  q: int = ruled(SIZE, 1)
  distinct_answers_in_test: bool = ruled(FLAG, True)
  output = Categorical()
  prompted = True
  holds_out = False
  correlated = True

  def __post_init__(self):
    super().__post_init__()
    text = self.text
    if self.name == "counting":
      most, why = text.counted - 4, f"counted ({text.counted}) less 4"
    else:
      most, why = text.place_range()[1] - 3, f"what farthest ({text.farthest}) and occurrence ({text.occurrence}) leave"
    require(self.q <= most, "q", self.q, f"1 to {most}, {why}")

  @property
  def values(self) -> tuple[int, int]:
    """(lowest, n): O_PT's answers are lowest, ..., lowest + n - 1; O_FT's are q more."""
    if self.name == "counting":
      return 0, (self.text.counted - self.q) // 2 + 1
    low, number = self.text.place_range()
    return low, number - self.q

  @property
  def length(self) -> int:
    """T: tokens of a prompt."""
    return self.text.prompt_length

  @property
  def num_labels(self) -> int:
    """V: the whole vocabulary; answers are tokens."""
    return len(self.text.symbols)

  @property
  def answer_position(self) -> int:
    """The last token of the prompt, ART, whose next token is the answer."""
    return self.length - 1

  @property
  def families(self) -> tuple[str, ...]:
    """The family tokens that ask this question; more than one with `text.jailbreaks` (App. E.2)."""
    return (self.name, *(JAILBREAKS if self.text.jailbreaks and self.name == "counting" else ()))

  @property
  def end(self) -> int:
    """Token id that follows the answer."""
    return self.text.token("EOS")

  def sample(self, key, batch_size: int, c_tr) -> Batch:
    """See `Task.sample`."""
    return self._sample(key, batch_size, c_tr, distinct=False)

  def sample_test(self, key, batch_size: int, c_te: int) -> Batch:
    """See `Task.sample_test`."""
    return self._sample(key, batch_size, float(c_te), distinct=self.distinct_answers_in_test)

  def sample_pretraining(self, key, batch_size: int, prior):
    """(prompts [B, T], answers [B]) of all five families; see `PCFGText.sample_pretraining`."""
    return self.text.sample_pretraining(key, batch_size, prior)

  def question(self, batch: Batch, target):
    """See `Task.question`; `random` (App. E.4) asks for O_PT and trains O_FT's answer."""
    operand = self.text.first_operand + jnp.array([0, 1, 0])[target]
    answers = jnp.stack([batch.labels_pt, batch.labels_ft, batch.labels_ft])
    return self.asking(batch.tokens, operand), answers[target]

  def text_of(self, tokens_BxT):
    """See `Task.text_of`: the counted end of the text."""
    end = 5 + self.text.window  # after SOS T O O' SOT
    letters = range(self.text.first_operand, self.text.first_operand + len(self.text.grammar.terminals))
    return tokens_BxT[:, end - self.text.counted : end], tuple(letters)

  def asking(self, tokens_BxT, operand, family: str | None = None):
    """Prompts with another operand (a token id) and, if given, another family token."""
    tokens = jnp.asarray(tokens_BxT).at[:, _OPERAND_POSITION].set(operand)
    return tokens if family is None else tokens.at[:, 1].set(self.text.token(family))

  def _sample(self, key, batch_size: int, c_tr, distinct: bool) -> Batch:
    low, number = self.values
    key_text, key_rest = jax.random.split(key)
    draws = jax.random.uniform(key_rest, (batch_size, 4 + max(self.text.counted, self.text.farthest)))
    value = whole(draws[:, 0], number)
    rotations = jnp.array([r for r in range(1, number) if not (self._same(r) and (distinct or self.name == "index"))])
    rotation = rotations[whole(draws[:, 1], len(rotations))]
    correlated = draws[:, 2] < c_tr
    other = (value + jnp.where(correlated, 0, rotation)) % number
    answers = low + jnp.stack([value, other + self.q], axis=1)
    text = self.text.texts(key_text, batch_size)
    if self.name == "counting":
      text = spread_counts(draws[:, 4:], text, answers, self.text.counted)
    else:
      text = spread_places(draws[:, 3:], text, answers, occurrence=self.text.occurrence, farthest=self.text.farthest)
    family, number_token = (
      jnp.full((batch_size,), token, jnp.int32)
      for token in (self.text.token(self.name), self.text.first_number + self.text.numbers(self.name))
    )
    operand = jnp.full((batch_size,), self.text.first_operand + 1, jnp.int32)
    answers = (self.text.first_number + answers).astype(jnp.int32)
    prompts = self.text.prompts(family_B=family, operand_B=operand, number_B=number_token, text_BxW=text)
    return Batch(prompts, answers[:, 0], answers[:, 1])

  def _same(self, rotation: int) -> bool:
    """Whether that rotation gives some values equal answers for both operands; an Index never has room for them."""
    return rotation == self.values[1] - self.q
