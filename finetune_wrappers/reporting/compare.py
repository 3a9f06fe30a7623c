"""Two runs beside each other, cell by cell, from their rows."""

from collections.abc import Iterable
from typing import NamedTuple

from finetune_wrappers.reporting.rows import Row, group
from finetune_wrappers.reporting.tables import CellSummary, cell_summary, paired_summary
from finetune_wrappers.types import InputError

_OF_A_SEED = ("experiment", "seed", "value", "diverged")


class Compared(NamedTuple):
  """One cell that both runs have.

  Attributes:
    fields: that the cell's rows share: task, stage, metric, step and every swept value.
    run: mean and interval of the run, over the seeds that both have; fractions for accuracies.
    base: likewise of the other.
    difference: run minus base, paired by seed.
  """

  fields: Row
  run: CellSummary
  base: CellSummary
  difference: CellSummary


class ComparedRuns(NamedTuple):
  """Two runs.

  Attributes:
    cells: of both, in the order of the run.
    only_run: number of cells that the other lacks, or of which it has other seeds.
    only_base: likewise of the other's cells.
  """

  cells: list[Compared]
  only_run: int
  only_base: int


def compare_runs(*, run: Iterable[Row], base: Iterable[Row]) -> ComparedRuns:
  """Pairs the cells of two runs by all their fields but the experiment's name, and the values in them by seed.

  Args:
    run: rows, as of `read_rows`; those of one metric, or all.
    base: rows of the run that it is compared with.

  Raises:
    InputError: if no cell has a seed in common, or a cell has a seed twice.
  """
  ours, theirs = _cells(run), _cells(base)
  cells = []
  for fields, own in ours.items():
    other = theirs.get(fields, [])
    seeds = {row["seed"] for row in own} & {row["seed"] for row in other}
    own, other = ([row for row in rows if row["seed"] in seeds] for rows in (own, other))
    if seeds:
      cells.append(Compared(dict(fields), cell_summary(own), cell_summary(other), paired_summary(own, base=other)))
  if not cells:
    raise InputError("base: shares no cell and seed with the run; give rows of the same stages and swept values")
  return ComparedRuns(cells, len(ours) - len(cells), len(theirs) - len(cells))


def _cells(rows: Iterable[Row]) -> dict[tuple, list[Row]]:
  """Rows of each cell by its fields; a field that is null is one that is missing."""
  rows = list(rows)
  names = sorted({name for row in rows for name in row} - {*_OF_A_SEED})
  found: dict[tuple, list[Row]] = {}
  for values, own in group(rows, *names).items():
    found[tuple((name, value) for name, value in zip(names, values, strict=True) if value is not None)] = own
  return found
