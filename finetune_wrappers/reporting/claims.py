"""Claims of the paper: whether our rows support them, and the numbers that decide."""

import dataclasses
import math
from collections.abc import Iterable

from finetune_wrappers.reporting.tables import CellSummary, markdown_table
from finetune_wrappers.statistics import Interval
from finetune_wrappers.types import InputError

# From strong to weak; the last if nothing can be said, for example because every run diverged.
ANSWERS = ("yes", "partly", "no", "not judged")
NOT_JUDGED = ANSWERS[-1]


@dataclasses.dataclass(frozen=True)
class Claim:
  """One statement of the paper and whether it held here.

  Attributes:
    text: the statement, in our words.
    answer: whether it held: one of ANSWERS.
    evidence: the numbers that decide, with their intervals.

  Raises:
    InputError: for another answer, or an empty text or evidence.
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


@dataclasses.dataclass(frozen=True)
class Finding:
  """Whether a claim holds for one model.

  Attributes:
    name: of the model.
    answer: one of ANSWERS.
    evidence: its numbers, or the reason why it is not judged.
  """

  name: str
  answer: str
  evidence: str


def judge(found: CellSummary, *, above: float, partly_above: float | None = None) -> str:
  """Whether a mean over seeds lies above a threshold.

  Args:
    found: mean and interval over seeds.
    above: threshold. `yes` if the whole interval lies above it (a single seed has no interval, so never), `partly` if
      only the mean does.
    partly_above: a lower threshold; `partly` as well if the whole interval (or a single seed's value) lies above it.

  Returns:
    One of ANSWERS; `not judged` if every run diverged.
  """
  if math.isnan(found.mean):
    return NOT_JUDGED
  low = found.interval.low
  if low > above:
    return "yes"
  floor = found.mean if math.isnan(low) else low
  return "partly" if found.mean > above or (partly_above is not None and floor > partly_above) else "no"


def judge_below(found: CellSummary, *, below: float) -> str:
  """Whether a mean over seeds lies below a threshold; see `judge`."""
  turned = Interval(-found.interval.high, -found.interval.low)
  return judge(found._replace(mean=-found.mean, interval=turned), above=-below)


def weakest(*answers: str) -> str:
  """The weakest of the answers, for a claim whose conditions must all hold."""
  return max(answers, key=ANSWERS.index)


def claim_of_models(text: str, findings: Iterable[Finding]) -> Claim:
  """A claim about several models: `yes` if it holds for all, `no` if for none, else `partly`.

  Models that are not judged do not count, but the evidence lists them with the reason.
  """
  findings = list(findings)
  judged = {finding.answer for finding in findings} - {NOT_JUDGED}
  answer = "partly" if len(judged) > 1 else next(iter(judged), NOT_JUDGED)
  return Claim(text, answer, "; ".join(f"{f.name} ({f.answer}): {f.evidence}" for f in findings) or "no such model")


def markdown_claims(claims: Iterable[Claim]) -> str:
  """The claims as a Markdown table, in the order given."""
  return markdown_table(
    ("The paper's claim", "Here", "Evidence (mean over seeds [95 % interval])"),
    [(claim.text, claim.answer, claim.evidence) for claim in claims],
  )
