"""Figure 27, Table 4 and randFT: how soon reverse fine-tuning revives O_PT, beside Scr. + FT."""

import itertools
import math

from experiments.reports import (
  TASKS,
  Made,
  baseline_section,
  footer,
  guesses,
  last_step,
  mean_of,
  means,
  present,
  rate_name,
)
from finetune_wrappers.reporting.claims import Claim, markdown_claims
from finetune_wrappers.reporting.plots import Panel, lines_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.style import PALETTE
from finetune_wrappers.reporting.tables import format_cell, markdown_table
from finetune_wrappers.statistics import (
  MedianRatio,
  Passage,
  bootstrap_median_ratio,
  first_passage,
  kaplan_meier_median,
)

_FINE_TUNING = ("learning_rate", "c_tr", "target")
_TARGETS = {"ft": "", "random": "randFT, "}


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Curves, median iterations to the threshold and their ratio to the control's."""
  del arrays
  threshold = facts["config"]["reft"]["threshold"]
  curves = select(rows, metric="acc_pt", c_te=0, stage=("reft", "scratch_ft"))
  lines, claims = [], []
  for task, rate in sorted(group(curves, "task", "reft_learning_rate"), reverse=True):
    cells = select(curves, task=task, reft_learning_rate=rate)
    found, claim = compare(task, rate, cells, threshold)
    lines += found
    claims.append(claim)
  header = (
    "task", "reFT rate", "model", "Acc. O_PT at the start", "at the end", f"median iterations to {threshold:.0%}",
    "control's median over it",
  )  # fmt: skip
  text = (
    f"Acc. O_PT at C_Te = 0 and iterations until it reaches {threshold:.0%}; a run that never does counts as censored "
    "(`> steps`, `k of n`). A model that fine-tuning left at the threshold has nothing to revive and no say in the "
    "claim, which is `yes` only where the whole interval of every ratio lies above 1. The ratio has a percentile "
    "bootstrap interval over seeds, which three seeds make too narrow; where the control never gets there it is a "
    "lower bound.\n\n"
  )
  return Made(
    title=f"Reverse fine-tuning against Scr. + FT ({facts['config']['name']})",
    sections=[
      ("Claims", markdown_claims(claims)),
      ("Revival", text + markdown_table(header, lines)),
      baseline_section(rows),
    ],
    figures={"figure": _figure(rows, curves, threshold, facts)},
    short=markdown_claims(claims),
  )


def compare(task: str, rate: float, cells: list[Row], threshold: float) -> tuple[list[tuple], Claim]:
  """Table lines and the claim for one task and one reFT rate, from Acc. O_PT rows at C_Te = 0."""
  control_rows = select(cells, stage="scratch_ft")
  control = passages(control_rows, threshold)
  lines, verdicts = [], []
  for setting, own in sorted(group(select(cells, stage="reft"), *_FINE_TUNING).items(), key=str, reverse=True):
    times = passages(own, threshold)
    ratio = bootstrap_median_ratio(times, control) if times and control else None
    if times and control and not _kept(own, threshold):
      verdicts.append(_verdict(ratio))
    lines.append(_line(task, rate, model_label(*setting), own, times, _ratio_text(ratio)))
  lines.append(_line(task, rate, "Scr. + FT", control_rows, control, ""))
  answer = "yes" if verdicts and set(verdicts) == {"yes"} else "partly" if set(verdicts) - {"no"} else "no"
  evidence = "; ".join(f"{line[2]}: {line[5]} iterations, ratio {line[6] or '-'}" for line in lines[:-1]) or "no reFT"
  text = f"{TASKS[task]}, reFT at {rate:g}: O_PT is back (Acc. {threshold:.0%}) sooner than Scr. + FT learns it"
  return lines, Claim(text, answer, f"{evidence}; Scr. + FT: {lines[-1][5]} iterations")


def _kept(own: list[Row], threshold: float) -> bool:
  """Whether fine-tuning left O_PT at the threshold: then there is nothing to revive, and no verdict."""
  return mean_of([row for row in own if row["step"] == 0]) >= threshold


def _verdict(ratio: MedianRatio | None) -> str:
  """`yes` if the whole interval says sooner, `partly` if the ratio does and the interval does not or is missing."""
  if ratio is None or not ratio.ratio > 1 or ratio.upper_bound:
    return "no"
  return "yes" if ratio.low > 1 else "partly"


def passages(rows: list[Row], threshold: float) -> list[Passage]:
  """First passage of each seed; seeds with no finite evaluation are left out."""
  found = []
  for run in group(rows, "seed").values():
    run = sorted(run, key=lambda row: row["step"])
    values = [math.nan if row["value"] is None else row["value"] for row in run]
    if not math.isnan(values[0]):
      found.append(first_passage([row["step"] for row in run], values, threshold))
  return found


def model_label(rate: float, c_tr: float, target: str) -> str:
  """How a fine-tuned model is called: `η_M 0.01, C_Tr 1`."""
  return f"{_TARGETS[target]}{rate_name(rate)}, C_Tr {c_tr:g}"


def _line(task: str, rate: float, model: str, own: list[Row], times: list[Passage], ratio: str) -> tuple:
  start = [row for row in own if row["step"] == 0]
  return (TASKS[task], f"{rate:g}", model, format_cell(start), format_cell(last_step(own)), _median_text(times), ratio)


def _median_text(times: list[Passage]) -> str:
  if not times:
    return "-"
  median, reached = kaplan_meier_median(times), sum(not time.censored for time in times)
  if math.isfinite(median):
    text = f"{median:.0f}"
  else:  # what is certain: every censored run may pass right after it was last seen
    text = f"> {kaplan_meier_median([time._replace(censored=False) for time in times]):.0f}"
  return text if reached == len(times) else f"{text} ({reached} of {len(times)} runs)"


def _ratio_text(ratio: MedianRatio | None) -> str:
  if ratio is None or math.isnan(ratio.ratio):
    return "-"
  sign = "at least " if ratio.lower_bound else "at most " if ratio.upper_bound else ""
  if math.isnan(ratio.low):
    return f"{sign}{ratio.ratio:.1f}"
  high = "∞" if math.isinf(ratio.high) else f"{ratio.high:.1f}"
  return f"{sign}{ratio.ratio:.1f} [{ratio.low:.1f}, {high}]"


def _figure(rows: list[Row], curves: list[Row], threshold: float, facts: dict):
  panels = []
  settings = sorted(group(select(curves, stage="reft"), *_FINE_TUNING), key=str, reverse=True)
  colours = dict(zip(settings, itertools.cycle(PALETTE[:-1]), strict=False))  # black is the control's
  for task, rate in sorted(group(curves, "task", "reft_learning_rate"), reverse=True):
    cells = select(curves, task=task, reft_learning_rate=rate)
    series = [
      means(own, "step", label=model_label(*setting), style="-", colour=colours[setting])
      for setting, own in sorted(group(select(cells, stage="reft"), *_FINE_TUNING).items(), key=str, reverse=True)
    ]
    series.append(means(select(cells, stage="scratch_ft"), "step", label="Scr. + FT", style="--", colour="#000000"))
    guess = {name: value for name, value in guesses(rows, task, 0).items() if name.endswith("PT")}
    title = f"{TASKS[task]}, reFT at {rate:g}"
    baselines = {"threshold": threshold, **guess}
    panels.append(Panel(title, "reFT iteration", "Acc. O_PT at C_Te = 0, %", series, baselines, xscale="symlog"))
  columns = max(len(present(curves, "reft_learning_rate")), 1)
  if columns == 1:
    columns = 2
  return lines_figure(
    panels, title="Reverse fine-tuning revives O_PT; Scr. + FT learns it", footer=footer(facts), columns=columns
  )
