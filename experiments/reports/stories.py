"""What reports of stories share: models by name, and numbers as text."""

import itertools
import math
from collections.abc import Sequence

from experiments.reports import means, present
from experiments.reports.names import rate_name
from finetune_wrappers.reporting.plots import Series
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import MISSING, CellSummary, cell_summary

PROTOCOLS = {
  "none": "no protocol",
  "filter": "F",
  "mix_match": "F + Mix & Match",
  "randomise": "F + Randomisation",
  "refusal": "refusal",
  "specialise": "specialise",
  "only_twist": "only stories with the feature",
}
CONTROL = "not in pretraining"
REVIVED = ("reft", "scratch_ft")


def models_of(rows: Sequence[Row], stage: str) -> list[tuple[str, list[Row]]]:
  """(name, rows) of every model of a kind of training, by protocol and learning rate."""
  rows = select(rows, stage=stage)
  several = stage in REVIVED and len(present(rows, "reft_learning_rate")) > 1
  found = group(rows, "protocol", "learning_rate", "reft_learning_rate").items()
  return [(named(own[0]) + (f", reFT {own[0]['reft_learning_rate']:g}" if several else ""), own) for _, own in found]


def with_controls(rows: Sequence[Row]) -> list[tuple[str, list[Row], list[Row]]]:
  """(name, rows, the control's rows at the same rate) of every model that was reverse fine-tuned."""
  control = select(rows, stage="scratch_ft")
  return [
    (name, own, select(control, reft_learning_rate=own[0].get("reft_learning_rate")))
    for name, own in models_of(rows, "reft")
  ]


def control_series(rows: Sequence[Row]) -> list[Series]:
  """The control's line, one for each rate."""
  found = models_of(rows, "scratch_ft")
  return [
    means(own, "step", label=name, style=style, colour="#000000")
    for (name, own), style in zip(found, itertools.cycle(("s--", "v:", "D-.")), strict=False)
  ]


def named(row: Row) -> str:
  """`F + Mix & Match, η_M 0.0001`, or the control."""
  if row.get("protocol") is None:
    return CONTROL
  return f"{PROTOCOLS[row['protocol']]}, {rate_name(row['learning_rate'], row['setting'])}"


def at_step(rows: Sequence[Row], step: int) -> list[Row]:
  """The rows of one step."""
  return [row for row in rows if row["step"] == step]


def number_cell(rows: Sequence[Row], digits: int = 3) -> str:
  """Mean and interval of a metric that is no fraction, such as a loss: `1.234 [1.200, 1.268]`."""
  return number_text(cell_summary(rows), f".{digits}f") if rows else MISSING


def number_text(found: CellSummary, form: str) -> str:
  """Mean and interval, each in a format such as `+.3f`, and how many runs diverged."""
  low, high = found.interval
  text = "" if math.isnan(found.mean) else f"{found.mean:{form}}"
  text += "" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]"
  diverged = f"diverged ({found.n_diverged} of {found.n})" if found.n_diverged else ""
  return ", ".join(part for part in (text, diverged) if part)
