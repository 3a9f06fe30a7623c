"""What reports of stories share: models by name, and numbers as text."""

import math
from collections.abc import Sequence

from experiments.reports.names import rate_name
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import MISSING, cell_summary, format_cell

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


def models_of(rows: Sequence[Row], stage: str) -> list[tuple[str, list[Row]]]:
  """(name, rows) of every model of a kind of training, by protocol and learning rate."""
  found = group(select(rows, stage=stage), "protocol", "learning_rate", "reft_learning_rate").items()
  return [(named(own[0]), own) for _, own in found]


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
  if not rows:
    return MISSING
  found = cell_summary(rows)
  if math.isnan(found.mean):
    return format_cell(rows)
  low, high = found.interval
  text = f"{found.mean:.{digits}f}" + ("" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]")
  return text + (f", diverged ({found.n_diverged} of {found.n})" if found.n_diverged else "")
