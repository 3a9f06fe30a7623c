"""Figures 5, 60-75 and Tables 5-8: accuracies of fine-tuned PCFG models by prior, C_Tr and C_Te.

With pretraining samples mixed in (App. E.1) each share of them is a model of its own.
"""

from experiments.reports import (
  PLAIN,
  Made,
  Report,
  bar_series,
  baseline_section,
  footer,
  four_cells,
  guesses,
  last_step,
  present,
)
from experiments.reports.names import by_prior, named, order_of, task_name
from finetune_wrappers.reporting.claims import (
  Claim,
  Finding,
  claim_of_models,
  judge,
  judge_below,
  markdown_claims,
  weakest,
)
from finetune_wrappers.reporting.paper_values import pcfg_tables
from finetune_wrappers.reporting.plots import Panel, bars_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import (
  cell_summary,
  comparison_table,
  format_cell,
  markdown_table,
  paired_summary,
)

_METRICS = ("acc_pt", "acc_ft")
_MODEL = ("task", "pretraining_steps", "learning_rate", "mix", "prior", "c_tr")
_PUBLISHED = ("task", "pretraining_steps", "learning_rate", "prior", "c_tr", "step", "c_te")


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Accuracies at the end of fine-tuning, what the paper claims of them, the cells of its tables, and bars."""
  del arrays
  found = select(rows, stage="finetune", metric=_METRICS, target="ft")
  final = last_step(found)
  before = select(rows, stage="pretrain", metric=_METRICS)
  claims = _claims(final)
  return Made(
    title=f"Fine-tuned PCFG models ({facts['config']['name']})",
    sections=[
      ("Accuracies", _table(before, final)),
      ("Beside the paper's", _beside_the_papers(found)),
      baseline_section(rows, "data"),
    ],
    figures=_figures(rows, before, final, facts),
    verdict=markdown_claims(claims),
  )


def _claims(final: list[Row]) -> list[Claim]:
  """What the paper says of C_Tr = 0 and 1, judged for every task, rate and n_iters."""
  learned, wrapped, kept = [], [], []
  for (task, steps, rate, mix, prior), own in group(final, *_MODEL[:-1]).items():
    name = named(own[0], "task", "pretraining_steps", "learning_rate", "prior", "mix")
    cells = {(c_tr, c_te): select(own, c_tr=c_tr, c_te=c_te, metric="acc_ft") for c_tr in (0.0, 1.0) for c_te in (0, 1)}
    if cells[0.0, 0]:
      learned.append(Finding(name, judge(cell_summary(cells[0.0, 0]), above=0.9), format_cell(cells[0.0, 0])))
    if not cells[1.0, 0]:
      continue
    where, elsewhere = cell_summary(cells[1.0, 1]), cell_summary(cells[1.0, 0])
    text = f"{format_cell(cells[1.0, 1])} against {format_cell(cells[1.0, 0])}"
    if prior == "low":
      wrapped.append(Finding(name, weakest(judge(where, above=0.9), judge_below(elsewhere, below=0.1)), text))
    if prior == "high":
      setting = {"task": task, "pretraining_steps": steps, "learning_rate": rate, "mix": mix, "c_tr": 1.0, "c_te": 0}
      low = select(final, **setting, prior="low", metric="acc_ft")
      if low:
        answer = judge(paired_summary(cells[1.0, 0], base=low), above=0.1)
        kept.append(Finding(name, answer, f"{format_cell(cells[1.0, 0])}, low prior {format_cell(low)}"))
  texts = (
    "C_Tr = 0: O_FT is learned on the whole distribution (Acc. O_FT above 90 % at C_Te = 0)",
    "C_Tr = 1, low prior: O_FT is answered where the correlation holds (above 90 % at C_Te = 1) and not elsewhere "
    "(below 10 % at C_Te = 0)",
    "C_Tr = 1: a high prior keeps more of Acc. O_FT at C_Te = 0 than a low one (10 points or more)",
  )
  found = zip(texts, (learned, wrapped, kept), strict=True)
  return [claim_of_models(text, findings) for text, findings in found if findings]


def _table(before: list[Row], final: list[Row]) -> str:
  lines = []
  for (task, steps, prior), own in group(before, "task", "pretraining_steps", "prior").items():
    lines.append((task_name(task), steps, "pretrained", prior, "", *four_cells(own)))
  for (task, steps, _, _, prior, c_tr), own in sorted(group(final, *_MODEL).items(), key=_order):
    name = named(own[0], "learning_rate", "mix")
    lines.append((task_name(task), steps, name, prior, f"{c_tr:g}", *four_cells(own)))
  header = ("task", "n_iters", "rate", "prior", "C_Tr", *(f"O_{o}, C_Te={c}" for c in (0, 1) for o in ("PT", "FT")))
  text = (
    "Accuracies in percent; O_PT is asked for with its own prompt, O_FT with its own. In the test set at C_Te = 0 the "
    "two operands' answers differ on every text.\n\n"
  )
  return text + markdown_table(header, lines)


def _order(item) -> tuple:
  task, steps, rate, mix, prior, c_tr = item[0]
  return task, steps, -rate, mix, order_of(prior), c_tr


def _beside_the_papers(found: list[Row]) -> str:
  """Tables 5 and 7, cell by cell, for the n_iters, rates and steps that they have."""
  paper = [
    row for row in pcfg_tables() if all(row[key] in present(found, key) for key in ("task", "pretraining_steps"))
  ]
  comparison = comparison_table(select(found, mix=0.0), paper, keys=_PUBLISHED, metrics=_METRICS)
  if not comparison.cells:
    return "The paper's Tables 5 and 7 are of n_iters 200 000 and 1K and 10K iterations; no model here is."
  return f"Mean absolute difference over {comparison.cells} cells: {comparison.points} points.\n\n{comparison.markdown}"


def _figures(rows: list[Row], before: list[Row], final: list[Row], facts: dict) -> dict:
  """One of bars for each task and n_iters. Groups: priors; bars: pretrained, and fine-tuned at each C_Tr."""
  figures = {}
  for (task, steps), of_model in group(final, *_MODEL[:2]).items():
    base = select(before, task=task, pretraining_steps=steps)
    panels = [
      panel
      for _, own in sorted(group(of_model, *_MODEL[2:4]).items(), key=lambda item: (-item[0][0], item[0][1]))
      for panel in _panels(rows, base, own, named(own[0], "task", "learning_rate", "mix"))
    ]
    name = f"figure_{task}_{steps}" if figures else "figure"
    title = f"Behaviour after fine-tuning, n_iters {steps}"
    columns = 2 if len(panels) == 4 else 4
    figures[name] = bars_figure(panels, title=title, footer=footer(facts), columns=columns)
  return figures


def _panels(rows: list[Row], base: list[Row], own: list[Row], name: str) -> list[Panel]:
  """Both operands' accuracies on both test sets."""
  panels, priors = [], by_prior(own)
  for metric in _METRICS:
    operand = f"O_{metric[-2:].upper()}"
    for c_te in (0, 1):
      chosen = {"metric": metric, "c_te": c_te}
      series = [bar_series("pretrained", [select(base, prior=prior, **chosen) for prior in priors])]
      for c_tr in present(own, "c_tr"):
        cells = [select(own, prior=prior, c_tr=c_tr, **chosen) for prior in priors]
        series.append(bar_series(f"fine-tuned, C_Tr {c_tr:g}", cells))
      guess = {"guess": guesses(rows, own[0]["task"], c_te)[f"guess {operand}"]}
      title = f"{name}, C_Te = {c_te}"
      panels.append(Panel(title, "prior of O_FT in pretraining", f"Acc. {operand}, %", series, guess, priors))
  return panels


REPORT = Report(make, reads=("behaviour", "data"), needs=("finetune.priors",), limits=PLAIN)
