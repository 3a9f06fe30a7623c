"""Markdown tables: means with intervals over seeds, counts of diverged runs, our numbers beside the paper's."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.statistics import NO_INTERVAL, Interval, mean_interval
from finetune_wrappers.types import InputError

MISSING = "-"

# Metrics that are fractions, besides the accuracies (named `acc_...`).
_SHARES = (
  "attention_mass",
  "attention_uniform",
  "predicted_share",
  "label_share",
  "guess_baseline",
  "generation_score",
  "readable_share",
)
_SIZES = ("activation_shift", "loss_feature", "loss_other")  # metrics from 0 up
_UNBOUNDED = (-math.inf, math.inf)


class CellSummary(NamedTuple):
  """One cell of a table.

  Attributes:
    mean: over the runs that did not diverge; nan if all did.
    interval: 95 % Student t interval over the seeds that did not diverge; (nan, nan) for fewer than 2. Clipped to the
      metric's range, [0, 1] for fractions and [-1, 1] for their differences, which keeps its confidence.
    n: number of runs, diverged ones included.
    n_diverged: number of diverged runs.
  """

  mean: float
  interval: Interval
  n: int
  n_diverged: int


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Our numbers compared with the paper's.

  Attributes:
    markdown: the table, in percent and percentage points, one line for each combination of keys that we ran.
    mean_absolute_difference: over the shared cells, as a fraction; nan if there are none.
    cells: number of shared cells (a cell is one metric at one combination of keys).
    only_ours: number of our cells that the paper lacks, or whose runs all diverged.
    only_paper: number of the paper's cells that we did not run.
  """

  markdown: str
  mean_absolute_difference: float
  cells: int
  only_ours: int
  only_paper: int

  @property
  def points(self) -> str:
    """The mean absolute difference in percentage points, as text; `-` if no cell is shared."""
    mean = self.mean_absolute_difference
    return MISSING if math.isnan(mean) else f"{100 * mean:.1f}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  """A Markdown table, newline at the end. `|` is escaped, line breaks become spaces and None an empty cell.

  Raises:
    InputError: if a row and the header differ in length.
  """
  lines = [_line(header), _line(["---"] * len(header))]
  for row in rows:
    if len(row) != len(header):
      raise InputError(f"rows: a row has {len(row)} cells; give {len(header)}, as in the header")
    lines.append(_line(row))
  return "\n".join(lines) + "\n"


def cell_summary(rows: Sequence[Row]) -> CellSummary:
  """Mean and interval over the seeds of one cell.

  Args:
    rows: one for each seed, of one metric.

  Raises:
    InputError: for no rows, several metrics, or a repeated seed (the interval would be too narrow).
  """
  metrics = sorted({row["metric"] for row in rows})
  if len(metrics) != 1:
    raise InputError(f"metric: a cell has {', '.join(metrics) or 'no rows'}; select rows of exactly one metric")
  seeds = [row["seed"] for row in rows]
  twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
  if twice:
    raise InputError(f"seed: {twice[0]} comes twice in one cell; select one step and one value of each swept field")
  values = [row["value"] for row in rows if row["value"] is not None]
  return _summary(values, len(rows), _bounds(metrics[0]))


def paired_summary(rows: Sequence[Row], *, base: Sequence[Row]) -> CellSummary:
  """Mean and interval over seeds of the difference of two cells, paired by seed.

  Args:
    rows: one for each seed, of one metric.
    base: rows to subtract, of the same metric. A seed that diverged here counts as diverged and needs no row in
      `rows`.

  Raises:
    InputError: as `cell_summary`, or if the two differ in metric or seeds.
  """
  for cell in (rows, base):
    if cell:
      cell_summary(cell)
  before = {row["seed"]: row["value"] for row in base}
  after = {seed: None for seed, value in before.items() if value is None} | {row["seed"]: row["value"] for row in rows}
  if after.keys() != before.keys() or {row["metric"] for row in rows} - {row["metric"] for row in base}:
    raise InputError(
      f"rows: seeds {sorted(after)} cannot be paired with {sorted(before)}; give the same seeds and metric"
    )
  pairs = [(after[seed], value) for seed, value in before.items()]
  differences = [now - was for now, was in pairs if now is not None and was is not None]
  low, high = _bounds(base[0]["metric"]) if base else _UNBOUNDED
  return _summary(differences, len(pairs), (low - high, high - low))


def _bounds(metric: str) -> tuple[float, float]:
  """Range of a metric."""
  if metric.startswith("acc_") or metric in _SHARES:
    return (0.0, 1.0)
  return (0.0, math.inf) if metric in _SIZES else _UNBOUNDED


def _summary(values: Sequence[float], n: int, bounds: tuple[float, float]) -> CellSummary:
  if not values:
    return CellSummary(math.nan, NO_INTERVAL, n, n)
  return CellSummary(math.fsum(values) / len(values), mean_interval(values, bounds=bounds), n, n - len(values))


def format_accuracy(
  mean: float, interval: tuple[float, float] = NO_INTERVAL, *, n: int | None = None, n_diverged: int = 0
) -> str:
  """A mean in percent with its interval: `98.3 [97.1, 99.5]`.

  Also `98.3` without an interval, `98.3 [97.1, 99.5], diverged (2 of 5)` and `diverged (3 of 3)`.

  Args:
    mean: fraction; nan if all runs diverged.
    interval: fractions; not shown if nan.
    n: number of runs, diverged ones included; None to show only how many diverged.
    n_diverged: number of diverged runs, shown unless 0.
  """
  text = "" if math.isnan(mean) else f"{100 * mean:.1f}"
  if text and not any(map(math.isnan, interval)):
    text += f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
  if n_diverged:
    text += ", " if text else ""
    text += f"{n_diverged} diverged" if n is None else f"diverged ({n_diverged} of {n})"
  return text or MISSING


def format_cell(rows: Sequence[Row]) -> str:
  """The accuracy of one cell as text; `-` if there are no rows."""
  if not rows:
    return MISSING
  summary = cell_summary(rows)
  return format_accuracy(summary.mean, summary.interval, n=summary.n, n_diverged=summary.n_diverged)


def format_points(found: CellSummary) -> str:
  """A difference of accuracies in percentage points: `+40.0 [+21.5, +58.5], diverged (1 of 3)`."""
  text = _points(found.mean)
  if not math.isnan(found.interval.low):
    text += f" [{_points(found.interval.low)}, {_points(found.interval.high)}]"
  if found.n_diverged:
    counted = f"diverged ({found.n_diverged} of {found.n})"
    text = counted if found.n_diverged == found.n else f"{text}, {counted}"
  return text


def comparison_table(
  ours_rows: Iterable[Row], paper_rows: Iterable[Mapping[str, Any]], *, keys: Sequence[str], metrics: Sequence[str]
) -> Comparison:
  """Our mean [interval] beside the paper's accuracy and the difference, ours minus the paper's.

  Args:
    ours_rows: our rows, one or more seeds for each combination of keys; other metrics are ignored.
    paper_rows: as from `paper_values`, fractions, one for each combination of keys and metric.
    keys: fields that tell the lines apart, the first columns (task, learning_rate, c_tr, c_te).
    metrics: accuracies to compare, three columns each.

  Raises:
    InputError: as `cell_summary`, or if two of the paper's rows share keys and metric.
  """
  paper = _paper_cells(paper_rows, keys, metrics)
  lines, ours = [], set()
  differences: list[float] = []
  for setting, setting_rows in group(_rounded(select(ours_rows, metric=list(metrics)), keys), *keys).items():
    line = list(setting)
    for metric in metrics:
      cell_rows = select(setting_rows, metric=metric)
      theirs = paper.get((*setting, metric), math.nan)
      difference = (cell_summary(cell_rows).mean if cell_rows else math.nan) - theirs
      line += [format_cell(cell_rows), format_accuracy(theirs), _points(difference)]
      differences += [] if math.isnan(difference) else [difference]
      ours.update([(*setting, metric)] if cell_rows else [])
    lines.append(line)
  columns = [name for metric in metrics for name in (f"{metric} ours, %", "paper, %", "difference, points")]
  return Comparison(
    markdown_table([*keys, *columns], lines),
    math.fsum(map(abs, differences)) / len(differences) if differences else math.nan,
    cells=len(differences),
    only_ours=len(ours) - len(differences),
    only_paper=len(set(paper) - ours),
  )


def _points(difference: float) -> str:
  """Percentage points with a sign; never -0.0."""
  return MISSING if math.isnan(difference) else f"{round(100 * difference, 1) + 0.0:+.1f}"


def _paper_cells(rows: Iterable[Mapping[str, Any]], keys: Sequence[str], metrics: Sequence[str]) -> dict[tuple, float]:
  """The paper's values by (*keys, metric)."""
  cells: dict[tuple, float] = {}
  for row in _rounded(rows, keys):
    if row["metric"] not in metrics or row["value"] is None:
      continue
    cell = (*(row.get(key) for key in keys), row["metric"])
    if cell in cells:
      raise InputError(f"paper_rows: {cell} comes twice; give more keys")
    cells[cell] = row["value"]
  return cells


def _rounded(rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
  """Rounds keys, so that a float32's 0.10000000149 matches 0.1."""
  return [{**row, **{key: float(f"{row[key]:.6g}") for key in keys if isinstance(row.get(key), float)}} for row in rows]


def _line(cells: Iterable[Any]) -> str:
  texts = ("" if cell is None else " ".join(str(cell).split()).replace("|", "\\|") for cell in cells)
  return "| " + " | ".join(texts) + " |"
