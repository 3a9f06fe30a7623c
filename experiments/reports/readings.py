"""The readings of Table 3, varied one at a time, beside the paper's cells."""

from experiments.reports import PLAIN, Made, Report, footer, guesses, last_step, present
from experiments.reports.names import named, task_name
from finetune_wrappers.reporting.paper_values import table3
from finetune_wrappers.reporting.plots import Panel, Series, bars_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, comparison_table, markdown_table

_KEYS = ("task", "learning_rate", "c_tr", "c_te")
_METRICS = ("acc_pt", "acc_ft")


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """A line for each reading: start, cells at C_Te = 0, mean absolute difference to the paper's."""
  del arrays
  tuned = select(rows, stage="finetune", metric=_METRICS)
  sections, tables = [], []
  for task in present(tuned, "task"):
    table = _table(select(tuned, task=task))
    sections.append((task_name(task), table))
    tables.append(f"{task_name(task)}\n\n{table}")
  note = (
    "Acc. O_PT / Acc. O_FT at C_Te = 0, in percent, after fine-tuning; `x` where the run diverged. `start` is\n"
    "Acc. O_PT after the noise and before training. The last column is the mean absolute difference to the paper's\n"
    "Table 3 over the cells run, both test sets, diverged runs left out (`x`: all did): a fact about the reading, and\n"
    "not what chose the default. Below the preset `paper` strings and training are shorter than the paper's: only the\n"
    "lines of one table compare."
  )
  return Made(
    title="Readings of Table 3, one at a time",
    sections=[("How to read this", note + "\n"), *sections],
    figures={"figure": _figure(rows, tuned, facts)},
    table="\n".join(tables),
  )


def _table(tuned: list[Row]) -> str:
  found = group(tuned, "learning_rate", "c_tr")
  cells = sorted(found, key=lambda cell: (-cell[0], cell[1]))
  lines = []
  for (reading,), own in group(tuned, "reading").items():
    start = select(own, step=0, metric="acc_pt", c_te=0, learning_rate=cells[0][0], c_tr=cells[0][1])
    final = last_step(own)
    texts = [_pair(select(final, learning_rate=rate, c_tr=c_tr, c_te=0)) for rate, c_tr in cells]
    lines.append((reading, _start(start), *texts, _difference(final)))
  return markdown_table(
    ("reading", "start", *(named(found[cell][0], "learning_rate", "c_tr") for cell in cells), "points to the paper"),
    lines,
  )


def _start(cell: list[Row]) -> str:
  if not cell:
    return "-"  # the first evaluation comes later
  start = cell_summary(cell)
  return "x" if start.n == start.n_diverged else f"{100 * start.mean:.0f}"


def _difference(final: list[Row]) -> str:
  """Points to the paper, with the number of cells they come from where runs diverged; `x` where all did."""
  compared = comparison_table(final, table3(), keys=_KEYS, metrics=_METRICS)
  diverged = [row["value"] is None for row in final]
  if all(diverged):
    return "x"
  return f"{compared.points} ({compared.cells} cells)" if any(diverged) else compared.points


def _pair(cell: list[Row]) -> str:
  found = [cell_summary(select(cell, metric=metric)) for metric in _METRICS]
  return " / ".join("x" if summary.n == summary.n_diverged else f"{100 * summary.mean:.1f}" for summary in found)


def _figure(rows: list[Row], tuned: list[Row], facts: dict):
  final = select(last_step(tuned), c_te=0)
  readings = [name for (name,) in group(final, "reading")]
  panels = []
  for (task, rate, c_tr), own in group(final, "task", "learning_rate", "c_tr").items():
    series = []
    for metric, label in zip(_METRICS, ("Acc. O_PT", "Acc. O_FT"), strict=True):
      ours = [cell_summary(select(own, reading=name, metric=metric)).mean for name in readings]
      theirs = select(table3(), task=task, learning_rate=rate, c_tr=c_tr, c_te=0.0, metric=metric)
      series.append(Series(label, [*ours, theirs[0]["value"] if theirs else float("nan")]))
    title = named(own[0], "task", "learning_rate", "c_tr")
    label = "accuracy at C_Te = 0, %"
    panels.append(Panel(title, "", label, series, guesses(rows, task, 0), categories=[*readings, "the paper"]))
  return bars_figure(panels, title="Readings, one at a time", footer=footer(facts, intervals=False), columns=2)


REPORT = Report(make, reads=("readings",), limits=PLAIN)
