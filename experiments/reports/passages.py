"""First passages of reverse fine-tuning: when each seed reached the threshold, and ratios of their medians as text."""

import math
from typing import NamedTuple

from experiments.reports import last_step, mean_of, present
from experiments.reports.names import named
from finetune_wrappers.analysis import revival
from finetune_wrappers.reporting.claims import NOT_JUDGED, Finding, judge
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, format_cell
from finetune_wrappers.statistics import MedianRatio, Passage


class FineTuning(NamedTuple):
  """What sets a fine-tuned model apart; the last three are None for compiled models."""

  setting: str
  learning_rate: float
  c_tr: float
  target: str
  prior: str | None
  pretraining_steps: int | None
  mix: float | None

  @property
  def label(self) -> str:
    """How the model is called: `η_M 0.01, C_Tr 1`; `low prior, η_M 1e-05, C_Tr 1`."""
    return named(self._asdict(), "prior", "target", "learning_rate", "c_tr", "mix")


def models_of(cells: list[Row]) -> list[tuple[FineTuning, list[Row]]]:
  """Each fine-tuned model that was reverse fine-tuned, with its rows."""
  found = group(select(cells, stage="reft"), *FineTuning._fields).items()
  return sorted(((FineTuning(*key), own) for key, own in found), key=lambda item: item[0], reverse=True)


def passages(rows: list[Row], threshold: float) -> list[Passage]:
  """First passage of each seed that counts; seeds with no finite evaluation are left out too."""
  return [*revival.passages(curves_of(counted(rows, threshold)), threshold).values()]


def counted(rows: list[Row], threshold: float) -> list[Row]:
  """Rows of the seeds that count: all of a control's; of a fine-tuned model's those that have something to revive."""
  there = {seed for (seed,), run in group(rows, "seed").items() if _nothing_to_revive(run, threshold)}
  return [row for row in rows if row["seed"] not in there]


def _nothing_to_revive(run: list[Row], threshold: float) -> bool:
  """Whether a fine-tuned model is at the threshold before the first step."""
  return any(row["stage"] == "reft" and row["step"] == 0 and (row["value"] or 0) >= threshold for row in run)


def curves_of(rows: list[Row]) -> dict[int, revival.Curve]:
  """The curve of each seed."""
  found = {}
  for (seed,), run in group(rows, "seed").items():
    run = sorted(run, key=lambda row: row["step"])
    values = [math.nan if row["value"] is None else row["value"] for row in run]
    found[seed] = revival.Curve(steps=[row["step"] for row in run], accuracies=values)
  return found


def not_to_judge(own: list[Row], threshold: float, *, measured: str = "Acc. O_PT") -> str:
  """Why nothing can be said about the revival of a model, by what is `measured`; empty if something can."""
  if passages(own, threshold):
    return ""
  start = [row for row in own if row["step"] == 0]
  gone = math.isnan(mean_of(start))
  return format_cell(start) if gone else f"nothing to revive, {measured} {format_cell(start)} at the start"


def sooner(name: str, ratio: MedianRatio, seeds: int, evidence: str) -> Finding:
  """`yes` if the whole interval lies above 1 and stands on three seeds or more; else `partly` if the ratio does."""
  if not ratio.ratio > 1 or ratio.upper_bound:
    return Finding(name, "no", evidence)
  return Finding(name, "yes" if ratio.low > 1 and seeds > 2 else "partly", evidence)


def recovered(name: str, own: list[Row], threshold: float) -> Finding:
  """Whether Acc. O_PT ends above the threshold."""
  reason = not_to_judge(own, threshold)
  if reason:
    return Finding(name, NOT_JUDGED, reason)
  final = last_step(counted(own, threshold))
  return Finding(name, judge(cell_summary(final), above=threshold), format_cell(final))


def median_text(rows: list[Row], threshold: float) -> str:
  """Median passage with what is uncertain about it: `> 200 (1 of 3 runs)`, `10, nothing to revive (1 of 3)`."""
  times, seeds = passages(rows, threshold), len(present(rows, "seed"))
  left = len(present(counted(rows, threshold), "seed"))
  parts = []
  if times:
    median = revival.median(times)
    text = f"> {median.steps:.0f}" if median.censored else f"{median.steps:.0f}"
    parts.append(text if median.reached == median.runs else f"{text} ({median.reached} of {median.runs} runs)")
  if len(times) < left:
    parts.append(f"diverged ({left - len(times)} of {seeds})")
  if left < seeds:
    parts.append(f"nothing to revive ({seeds - left} of {seeds})")
  return ", ".join(parts) or "-"


def ratio_text(ratio: MedianRatio | None) -> str:
  """A ratio with its interval: `at least 20.0 [10.0, ∞]`."""
  if ratio is None or math.isnan(ratio.ratio):
    return "-"
  sign = "at least " if ratio.lower_bound else "at most " if ratio.upper_bound else ""
  if math.isnan(ratio.low):
    return f"{sign}{ratio.ratio:.1f}"
  high = "∞" if math.isinf(ratio.high) else f"{ratio.high:.1f}"
  return f"{sign}{ratio.ratio:.1f} [{ratio.low:.1f}, {high}]"
