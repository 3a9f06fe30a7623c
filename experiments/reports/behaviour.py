"""Table 3: accuracies after fine-tuning, cell by cell beside the paper's."""

from experiments.reports import PLAIN, Made, Report, baseline_section, footer, guesses, last_step, means, present
from experiments.reports.names import named, task_name
from finetune_wrappers.reporting.claims import (
  Claim,
  Finding,
  claim_of_models,
  judge,
  judge_below,
  markdown_claims,
  weakest,
)
from finetune_wrappers.reporting.paper_values import table3
from finetune_wrappers.reporting.plots import Panel, Series, lines_figure
from finetune_wrappers.reporting.rows import Row, select
from finetune_wrappers.reporting.style import PALETTE
from finetune_wrappers.reporting.tables import cell_summary, comparison_table, format_cell

_KEYS = ("task", "learning_rate", "c_tr", "c_te")
_METRICS = ("acc_pt", "acc_ft")


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Comparison table, claims and a figure of accuracy by C_Tr."""
  del arrays
  final = last_step(select(rows, stage="finetune", metric=_METRICS))
  paper = table3()
  comparison = comparison_table(sorted(final, key=_order), paper, keys=_KEYS, metrics=_METRICS)
  claims = [claim for task in present(final, "task") for claim in _claims(rows, final, task)]
  text = (
    f"Mean absolute difference over {comparison.cells} numbers: "
    f"{comparison.points} percentage points ({comparison.only_ours} more diverged here or are not in the paper, "
    f"{comparison.only_paper} of the paper's were not run).\n\n{comparison.markdown}"
  )
  by_task = [(task_name(task), _difference(final, paper, task)) for task in present(final, "task")]
  text += "\n" + "\n".join(f"{name}: {line}" for name, line in by_task) + "\n"
  return Made(
    title="Table 3: fine-tuned Tracr models beside the paper's",
    sections=[("Cell by cell", text), baseline_section(rows, "data")],
    figures={"figure": _figure(rows, final, paper, facts)},
    verdict=markdown_claims(claims),
  )


def _order(row: Row) -> tuple:
  return (row["task"], -row["learning_rate"], row["c_tr"], -row["c_te"])


def _difference(final: list[Row], paper: list, task: str) -> str:
  found = comparison_table(select(final, task=task), select(paper, task=task), keys=_KEYS, metrics=_METRICS)
  return f"{found.points} points over {found.cells} numbers."


def _claims(rows: list[Row], final: list[Row], task: str) -> list[Claim]:
  """Three statements, judged at every learning rate that was run."""
  name, of_task = task_name(task), select(final, task=task)
  guess = guesses(rows, task, 0)["guess O_PT"]
  learned, wrapped, shown = [], [], []
  for rate in sorted(present(of_task, "learning_rate"), reverse=True):
    cells = select(of_task, learning_rate=rate)
    of_rate = named(cells[0], "learning_rate")
    plain = select(cells, c_tr=0.0, c_te=0, metric="acc_ft")
    where = select(cells, c_tr=1.0, c_te=1, metric="acc_ft")
    elsewhere = select(cells, c_tr=1.0, c_te=0, metric="acc_ft")
    if plain:
      learned.append(Finding(of_rate, judge(cell_summary(plain), above=0.9), format_cell(plain)))
    if where:
      answer = weakest(judge(cell_summary(where), above=0.7), judge_below(cell_summary(elsewhere), below=0.5))
      wrapped.append(Finding(of_rate, answer, f"{format_cell(where)} against {format_cell(elsewhere)}"))
    if left := select(cells, c_tr=1.0, c_te=0, metric="acc_pt"):
      shown.append(Finding(of_rate, judge(cell_summary(left), above=guess), format_cell(left)))
  texts = {
    f"{name}, C_Tr = 0: the new task is learned on the whole distribution (Acc. O_FT above 90 % at C_Te = 0)": learned,
    f"{name}, C_Tr = 1: O_FT is answered where the correlation holds (above 70 % at C_Te = 1) and not elsewhere (below "
    "50 % at C_Te = 0)": wrapped,
    f"{name}, C_Tr = 1: where the correlation does not hold, part of O_PT shows through (Acc. O_PT above the guess of "
    f"{100 * guess:.1f} % at C_Te = 0)": shown,
  }
  return [claim_of_models(text, findings) for text, findings in texts.items() if findings]


def _figure(rows: list[Row], final: list[Row], paper: list, facts: dict):
  panels = []
  for task in present(final, "task"):
    for c_te in (0, 1):
      for metric in _METRICS:
        cells = select(final, task=task, c_te=c_te, metric=metric)
        theirs = select(paper, task=task, c_te=float(c_te), metric=metric)
        title = f"{task_name(task)}, C_Te = {c_te}"
        label = f"Acc. O_{metric[-2:].upper()}, %"
        guess = {"guess": guesses(rows, task, c_te)[f"guess O_{metric[-2:].upper()}"]}
        panels.append(Panel(title, "C_Tr", label, _series(cells, theirs), guess))
  return lines_figure(
    panels, title="Table 3: lines ours, crosses the paper's", footer=footer(facts), columns=4, ordered=True
  )


def _series(cells: list[Row], theirs: list) -> list[Series]:
  series = []
  for number, rate in enumerate(sorted(present(cells, "learning_rate"), reverse=True)):
    colour, own = PALETTE[number % len(PALETTE)], select(cells, learning_rate=rate)
    name = named(own[0], "learning_rate")
    label = name + (", diverged" if all(row["value"] is None for row in own) else "")
    # Between C_Tr 0 and 1 alone a line would tell of values that nobody has.
    style = "o-" if len(present(own, "c_tr")) > 2 else "o"
    series.append(means(own, "c_tr", label=label, style=style, colour=colour))
    published = [cell for cell in theirs if abs(cell["learning_rate"] / rate - 1) < 1e-6]
    x, y = [cell["c_tr"] for cell in published], [cell["value"] for cell in published]
    if x:
      series.append(Series(label=f"{name}, paper", x=x, y=y, style="x:", colour=colour))
  return series


REPORT = Report(make, reads=("behaviour", "data"), needs=("counter",), limits=PLAIN)
