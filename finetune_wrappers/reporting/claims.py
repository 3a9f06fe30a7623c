"""Claims: what the paper says, whether our rows bear it out, and by which numbers."""

import dataclasses
from collections.abc import Iterable

from finetune_wrappers.reporting.tables import markdown_table
from finetune_wrappers.types import InputError

ANSWERS = ("yes", "partly", "no")


@dataclasses.dataclass(frozen=True)
class Claim:
  """One statement of the paper and what became of it.

  Attributes:
    text: the statement, in our words.
    answer: whether it held: one of ANSWERS.
    evidence: the numbers that decide, with their intervals.

  Raises:
    InputError: for another answer, or a text or evidence that is empty.
  """

  text: str
  answer: str
  evidence: str

  def __post_init__(self):
    if self.answer not in ANSWERS:
      raise InputError(f"answer: {self.answer!r} is not one of {', '.join(ANSWERS)}")
    for name in ("text", "evidence"):
      if not getattr(self, name).strip():
        raise InputError(f"{name}: empty; a claim needs both text and evidence")


def markdown_claims(claims: Iterable[Claim]) -> str:
  """The claims as a Markdown table, in the order given."""
  return markdown_table(
    ("The paper's claim", "Here", "Evidence"), [(claim.text, claim.answer, claim.evidence) for claim in claims]
  )
