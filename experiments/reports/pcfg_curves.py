"""Figure 6: Acc. O_PT while a PCFG model is fine-tuned, by prior and C_Tr."""

from experiments.reports import (
  PLAIN,
  Made,
  Report,
  baseline_section,
  footer,
  guesses,
  last_step,
  mean_of,
  means,
  present,
)
from experiments.reports.names import by_prior, named
from finetune_wrappers.reporting.claims import NOT_JUDGED, Finding, claim_of_models, judge, markdown_claims
from finetune_wrappers.reporting.plots import Panel, lines_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import format_cell, markdown_table, paired_summary

_SETTING = ("task", "pretraining_steps", "learning_rate", "mix", "prior")
_HAD = 0.6  # below, O_PT has no 50 points to lose


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Curves at C_Te = 0 and 1, and the claim that fine-tuning takes O_PT away."""
  del arrays
  curves = select(rows, stage="finetune", metric="acc_pt", target="ft")
  claims = [claim_of_models("Fine-tuning takes O_PT away: Acc. O_PT falls by more than 50 points", _falls(curves))]
  return Made(
    title=f"Acc. O_PT during fine-tuning ({facts['config']['name']})",
    sections=[("Curves", _table(curves)), baseline_section(rows, "data")],
    figures={"figure": _figure(rows, curves, facts)},
    verdict=markdown_claims(claims),
  )


def _falls(curves: list[Row]) -> list[Finding]:
  found = []
  for own in group(select(curves, c_te=0), *_SETTING, "c_tr").values():
    first, last = [row for row in own if row["step"] == 0], last_step(own)
    answer = judge(paired_summary(first, base=last), above=0.5) if mean_of(first) > _HAD else NOT_JUDGED
    evidence = f"{format_cell(first)} to {format_cell(last)}"
    found.append(Finding(named(own[0], *_SETTING, "c_tr"), answer, evidence))
  return found


def _table(curves: list[Row]) -> str:
  steps = present(curves, "step")
  chosen = [steps[round(i * (len(steps) - 1) / 5)] for i in range(6)] if len(steps) > 6 else steps
  lines = []
  for (*_, prior, c_tr), own in group(select(curves, c_te=0), *_SETTING, "c_tr").items():
    cells = [format_cell(select(own, step=step)) for step in chosen]
    lines.append((named(own[0], *_SETTING[:-1]), prior, f"{c_tr:g}", *cells))
  header = ("model", "prior", "C_Tr", *(f"step {step}" for step in chosen))
  return "Acc. O_PT in percent at C_Te = 0, asked for with its own prompt.\n\n" + markdown_table(header, lines)


def _figure(rows: list[Row], curves: list[Row], facts: dict):
  panels = []
  for (task, *_), own in group(curves, *_SETTING[:-1]).items():
    for c_te in (0, 1):
      for prior in by_prior(own):
        cells = select(own, prior=prior, c_te=c_te)
        series = [
          means(select(cells, c_tr=c_tr), "step", label=f"C_Tr {c_tr:g}", style="-") for c_tr in present(cells, "c_tr")
        ]
        title = f"{named(cells[0], *_SETTING)}, C_Te = {c_te}"
        guess = {"guess": guesses(rows, task, c_te)["guess O_PT"]}
        panels.append(Panel(title, "fine-tuning iteration", "Acc. O_PT, %", series, guess, xscale="symlog"))
  columns = max(len(by_prior(curves)), 2)
  return lines_figure(
    panels, title="Acc. O_PT while O_FT is trained", footer=footer(facts), columns=columns, ordered=True
  )


REPORT = Report(make, reads=("behaviour", "data"), needs=("finetune.priors",), limits=PLAIN)
