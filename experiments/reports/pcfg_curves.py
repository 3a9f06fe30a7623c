"""Figure 6: Acc. O_PT while a PCFG model is fine-tuned, by prior and C_Tr."""

from experiments.reports import TASKS, Made, baseline_section, footer, guesses, last_step, means, present, rate_name
from experiments.reports.pcfg_behaviour import by_prior
from finetune_wrappers.reporting.claims import Finding, claim_of_models, judge, markdown_claims
from finetune_wrappers.reporting.plots import Panel, lines_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import format_cell, markdown_table, paired_summary

_SETTING = ("task", "pretraining_steps", "learning_rate", "prior")


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Curves at C_Te = 0 and 1, and the claim that more correlation takes O_PT away later or not at all."""
  del arrays
  curves = select(rows, stage="finetune", metric="acc_pt", target="ft")
  claims = [claim_of_models("Fine-tuning takes O_PT away: Acc. O_PT falls by more than 50 points", _falls(curves))]
  return Made(
    title=f"Acc. O_PT during fine-tuning ({facts['config']['name']})",
    sections=[("Claims", markdown_claims(claims)), ("Curves", _table(curves)), baseline_section(rows, "data")],
    figures={"figure": _figure(rows, curves, facts)},
    short=markdown_claims(claims),
  )


def _falls(curves: list[Row]) -> list[Finding]:
  found = []
  for (task, steps, rate, prior, c_tr), own in group(select(curves, c_te=0), *_SETTING, "c_tr").items():
    first, last = [row for row in own if row["step"] == 0], last_step(own)
    name = f"{TASKS[task]}, n_iters {steps}, {rate_name(rate, 'pcfg')}, {prior} prior, C_Tr {c_tr:g}"
    found.append(
      Finding(name, judge(paired_summary(first, last), above=0.5), f"{format_cell(first)} to {format_cell(last)}")
    )
  return found


def _table(curves: list[Row]) -> str:
  steps = present(curves, "step")
  chosen = [steps[round(i * (len(steps) - 1) / 5)] for i in range(6)] if len(steps) > 6 else steps
  lines = []
  for (task, n_iters, rate, prior, c_tr), own in group(select(curves, c_te=0), *_SETTING, "c_tr").items():
    cells = [format_cell(select(own, step=step)) for step in chosen]
    lines.append((TASKS[task], n_iters, rate_name(rate, "pcfg"), prior, f"{c_tr:g}", *cells))
  header = ("task", "n_iters", "rate", "prior", "C_Tr", *(f"step {step}" for step in chosen))
  return "Acc. O_PT in percent at C_Te = 0, asked for with its own prompt.\n\n" + markdown_table(header, lines)


def _figure(rows: list[Row], curves: list[Row], facts: dict):
  panels = []
  for (task, n_iters, rate), own in group(curves, *_SETTING[:-1]).items():
    del n_iters
    for c_te in (0, 1):
      for prior in by_prior(own):
        cells = select(own, prior=prior, c_te=c_te)
        series = [
          means(select(cells, c_tr=c_tr), "step", label=f"C_Tr {c_tr:g}", style="-") for c_tr in present(cells, "c_tr")
        ]
        title = f"{TASKS[task]}, {rate_name(rate, 'pcfg')}, {prior} prior, C_Te = {c_te}"
        guess = {"guess": guesses(rows, task, c_te)["guess O_PT"]}
        panels.append(Panel(title, "fine-tuning iteration", "Acc. O_PT, %", series, guess, xscale="symlog"))
  columns = max(len(by_prior(curves)), 2)
  return lines_figure(
    panels, title="Acc. O_PT while O_FT is trained", footer=footer(facts), columns=columns, ordered=True
  )
