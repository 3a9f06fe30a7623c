"""The demo: was the capability deleted or wrapped? One short table, one figure."""

from experiments.reports import (
  PLAIN,
  REVERSED,
  Made,
  Report,
  baseline_section,
  footer,
  four_cells,
  guesses,
  last_step,
  means,
  present,
  pruning_guess,
)
from experiments.reports.names import named
from experiments.reports.passages import models_of
from experiments.reports.pruning import curve_claims
from experiments.reports.revival import compare, table_lines
from finetune_wrappers.reporting.claims import Claim, judge, judge_below, markdown_claims, weakest
from finetune_wrappers.reporting.plots import Panel, lines_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, format_cell, markdown_table
from finetune_wrappers.rules import Rule


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Behaviour, pruning and revival of Counter, the paper's claims beside our answers."""
  del arrays
  threshold = facts["config"]["reft"]["threshold"]
  curves = select(rows, metric="acc_pt", c_te=0, stage=("reft", "scratch_ft"))
  (task, reft_rate), cells = next(iter(group(curves, "task", "reft_learning_rate").items()))
  lines, revival = table_lines(task, reft_rate, cells, threshold), compare(task, reft_rate, cells, threshold)
  pruned = curve_claims(select(rows, stage="prune", metric="acc_pt", c_te=0), rows)
  claims = [_wrapper_claim(rows), *pruned, revival]
  header = ("reFT", "model", "Acc. O_PT at the start", "at the end", "median iterations", "ratio")
  table = _behaviour(rows)
  return Made(
    title="Quickstart: Counter, fine-tuned from a to b, on a small model",
    sections=[
      ("Claims", markdown_claims(claims)),
      ("Accuracies, %", table),
      ("Reverse fine-tuning", markdown_table(header, lines)),
      baseline_section(rows, "data", "prune"),
    ],
    figures={"figure": _figure(rows, curves, threshold, facts)},
    short=f"{table}\n{markdown_claims(claims)}",
  )


def _behaviour(rows: list[Row]) -> str:
  """Accuracies of every kind of model, with intervals over seeds."""
  lines = [("compiled (count a)", *four_cells(select(rows, stage="compile", operand="pt")))]
  for own in group(select(rows, stage="finetune"), "learning_rate", "c_tr").values():
    lines.append((f"fine-tuned, {named(own[0], 'learning_rate', 'c_tr')}", *four_cells(last_step(own))))
  for setting, own in reversed(models_of(rows)):
    lines.append((f"then reFT, of {setting.label}", *four_cells(last_step(own))))
  lines.append(("Scr. + FT (control)", *four_cells(last_step(select(rows, stage="scratch_ft")))))
  return markdown_table(("model", "O_PT, C_Te=0", "O_FT, C_Te=0", "O_PT, C_Te=1", "O_FT, C_Te=1"), lines)


def _wrapper_claim(rows: list[Row]) -> Claim:
  cells = select(last_step(select(rows, stage="finetune")), c_tr=1.0, metric="acc_ft")
  where, elsewhere = select(cells, c_te=1), select(cells, c_te=0)
  answer = weakest(judge(cell_summary(where), above=0.7), judge_below(cell_summary(elsewhere), below=0.5))
  text = "C_Tr = 1: the model answers for O_FT where the correlation holds (above 70 %), and not elsewhere (below 50 %)"
  return Claim(text, answer, f"Acc. O_FT {format_cell(where)} at C_Te = 1 against {format_cell(elsewhere)} at C_Te = 0")


def _figure(rows: list[Row], curves: list[Row], threshold: float, facts: dict):
  guess = {name: value for name, value in guesses(rows, "counter", 0).items() if name.endswith("PT")}
  revive = [
    means(own, "step", label=f"reFT of C_Tr {c_tr:g}", style="-")
    for (c_tr,), own in group(select(curves, stage="reft"), "c_tr").items()
  ]
  revive.append(means(select(curves, stage="scratch_ft"), "step", label="Scr. + FT", style="--", colour="#000000"))
  prune = select(rows, stage="prune", c_te=0, metric="acc_pt")
  series = [
    means(select(prune, c_tr=c_tr, score=score), "k", label=f"{score}, C_Tr {c_tr:g}", style=style)
    for c_tr in present(prune, "c_tr")
    for score, style in (("gradient", "o-"), ("random", "o:"))
  ]
  label = "Acc. O_PT at C_Te = 0, %"
  panels = [
    Panel("Reverse fine-tuning", "reFT iteration", label, revive, {"threshold": threshold, **guess}, xscale="symlog"),
    Panel("Pruning", "K weights zeroed", label, series, pruning_guess(rows, "counter")),
  ]
  return lines_figure(panels, title="Counting a's comes back", footer=footer(facts), columns=2)


_ONE = Rule("a tuple of one value", lambda values: len(values) == 1)
_SINGLE = ("finetune.learning_rates", "reft.learning_rates", "pruning.units", "pruning.scopes")
_LIMITS = {
  **PLAIN,
  **REVERSED,
  "tasks": Rule("('counter',)", lambda values: values == ("counter",)),
  "finetune.c_trs": Rule("a tuple with 1.0", lambda values: 1 in values),
  **dict.fromkeys(_SINGLE, _ONE),
}

REPORT = Report(make, reads=("behaviour", "pruning", "data"), needs=("counter",), limits=_LIMITS)
