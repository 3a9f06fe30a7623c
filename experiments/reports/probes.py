"""Figures 8 and 90-98: accuracy of linear probes by block, beside a model without the capability and control labels."""

import numpy as np

from experiments.reports import TASKS, Made, footer, mean_of, means, present, rate_name
from experiments.reports.pcfg_behaviour import by_prior, mix_name
from finetune_wrappers.analysis.probing import saturated
from finetune_wrappers.reporting.claims import NOT_JUDGED, Claim, Finding, claim_of_models, judge, markdown_claims
from finetune_wrappers.reporting.plots import Panel, Series, lines_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import format_cell, format_points, markdown_table, paired_summary

_SETTING = ("task", "pretraining_steps", "prior")
_KEPT = 0.05  # "as well as before": at most 5 points less


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Accuracy by block of every model, whether O_PT is read as before, and whether the probe is saturated."""
  del arrays
  probes = select(rows, stage="probe", metric="acc_probe")
  claims = [_kept(rows, probes, c_tr) for c_tr in present(probes, "c_tr")] + [_informative(rows, probes)]
  text = (
    "Accuracy in percent on fresh strings at C_Te = 0. `control` are labels that mean nothing, distributed like the "
    "answer; `selectivity` is accuracy minus control, each seed against itself. `never had O_PT` was pretrained "
    "without it.\n\n"
  )
  return Made(
    title=f"Linear probes ({facts['config']['name']})",
    sections=[("Claims", markdown_claims(claims)), ("At the last block", text + _table(probes))],
    figures={"figure": _figure(rows, probes, facts)},
    short=markdown_claims(claims),
  )


def _models(probes: list[Row]) -> list[tuple[str, str, list[Row]]]:
  """(prior, name, rows) of every model; the control's prior is its own."""
  found = []
  for (prior, kind, rate, mix, c_tr), own in group(probes, "prior", "model", "learning_rate", "mix", "c_tr").items():
    name = "pretrained" if kind == "pretrain" else f"{rate_name(rate, 'pcfg')}, C_Tr {c_tr:g}{mix_name(mix)}"
    found.append((prior, "never had O_PT" if prior == "without_a" else name, own))
  return found


def _last(cells: list[Row], reads: str) -> list[Row]:
  return select(cells, reads=reads, block=max(present(cells, "block")))


def _kept(rows: list[Row], probes: list[Row], c_tr: float) -> Claim:
  findings = []
  tuned = select(probes, c_tr=c_tr)
  for (task, steps, prior, rate, mix), own in group(tuned, *_SETTING, "learning_rate", "mix").items():
    base = select(probes, task=task, pretraining_steps=steps, prior=prior, model="pretrain")
    before, after = _last(base, "pt"), _last(own, "pt")
    change = paired_summary(after, before)
    text = f"{format_cell(before)} to {format_cell(after)} ({format_points(change)} points)"
    name = f"{TASKS[task]}, {prior} prior, {rate_name(rate, 'pcfg')}{mix_name(mix)}"
    read = mean_of(before) > _guess(rows, task) + _KEPT
    answer, why = (judge(change, above=-_KEPT), "") if read else (NOT_JUDGED, ": not read before, about the guess")
    findings.append(Finding(name, answer, text + why))
  return claim_of_models(f"C_Tr = {c_tr:g}: probes of the last block read O_PT as well as before fine-tuning", findings)


def _informative(rows: list[Row], probes: list[Row]) -> Claim:
  """A probe that reads O_PT from a model that never had it says nothing."""
  findings = []
  for (task,), own in group(probes, "task").items():
    negative = _values(_last(select(own, prior="without_a"), "pt"))
    guess = _guess(rows, task)
    for prior, name, cells in _models(own):
      if name != "pretrained":
        continue
      accuracy = _values(_last(cells, "pt"))
      if not accuracy or len(accuracy) != len(negative):
        findings.append(Finding(f"{TASKS[task]}, {prior} prior", NOT_JUDGED, "a seed diverged"))
        continue
      means_of = [100 * value for value in (np.mean(accuracy), np.mean(negative), guess)]
      text = "{:.1f} % against {:.1f} % without O_PT, guess {:.1f} %".format(*means_of)
      gain = paired_summary(_last(cells, "pt"), _last(select(own, prior="without_a"), "pt"))
      text += ", saturated" if saturated(accuracy, negative, guess) else ""
      findings.append(Finding(f"{TASKS[task]}, {prior} prior", judge(gain, above=_KEPT), text))
  return claim_of_models("Probes of the last block tell a model with O_PT from one that never had it", findings)


def _guess(rows: list[Row], task: str, reads: str = "pt") -> float:
  return select(rows, stage="probe", metric="guess_baseline", task=task, reads=reads)[0]["value"]


def _values(cells: list[Row]) -> list[float]:
  return [row["value"] for row in sorted(cells, key=lambda row: row["seed"]) if row["value"] is not None]


def _table(probes: list[Row]) -> str:
  lines = []
  for (task,), of_task in group(probes, "task").items():
    for prior, name, own in _models(of_task):
      for reads in ("pt", "ft"):
        accuracy, control = _last(own, reads), _last(own, f"control_{reads}")
        gain = format_points(paired_summary(accuracy, control))
        line = (TASKS[task], prior, name, f"O_{reads.upper()}", format_cell(accuracy), format_cell(control), gain)
        lines.append(line)
  return markdown_table(("task", "prior", "model", "reads", "accuracy", "control", "selectivity, points"), lines)


def _figure(rows: list[Row], probes: list[Row], facts: dict):
  panels = []
  for (task,), of_task in group(probes, "task").items():
    negative = select(of_task, prior="without_a")
    for reads in ("pt", "ft"):
      guess = _guess(rows, task, reads)
      for prior in by_prior(of_task):
        series = [_line(cells, reads, name) for _, name, cells in _models(select(of_task, prior=prior))]
        series.append(_line(negative, reads, "never had O_PT", style="--", colour="#000000"))
        base = select(of_task, prior=prior, model="pretrain")
        series.append(_line(base, f"control_{reads}", "pretrained, control labels", style=":", colour="#777777"))
        title = f"{TASKS[task]}, {prior} prior"
        panels.append(Panel(title, "block", f"probe of O_{reads.upper()}, %", series, {"guess": guess}))
  columns = max(len(by_prior(probes)), 2)
  return lines_figure(panels, title="What linear probes read", footer=footer(facts), columns=columns)


def _line(cells: list[Row], reads: str, label: str, **look) -> Series:
  return means(select(cells, reads=reads), "block", label=label, **look)
