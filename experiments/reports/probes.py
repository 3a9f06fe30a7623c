"""Figures 8, 25 and 90-98: accuracy of linear probes by block, beside a model without O_PT and control labels."""

import numpy as np

from experiments.reports import Made, Report, footer, mean_of, means, present
from experiments.reports.names import FAMILIES, by_prior, named
from finetune_wrappers.analysis.probing import saturated
from finetune_wrappers.reporting.claims import NOT_JUDGED, Claim, Finding, claim_of_models, judge, markdown_claims
from finetune_wrappers.reporting.plots import Panel, Series, lines_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import format_cell, format_points, markdown_table, paired_summary

_SETTING = ("task", "pretraining_steps", "family")  # models of one setting stand in one panel
_TUNED = ("learning_rate", "target", "mix", "c_tr")
_KEPT = 0.05  # "as well as before": at most 5 points less


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Accuracy by block of every model, whether O_PT is read as before, and whether the probe is saturated."""
  del arrays
  probes = select(rows, stage="probe", metric="acc_probe")
  claims = [_kept(rows, probes, c_tr) for c_tr in present(probes, "c_tr")] + [_informative(rows, probes)]
  text = (
    "Accuracy in percent on fresh strings drawn as the test set at C_Te = 0. `control` are labels that mean nothing, "
    "distributed like the answer; `selectivity` is accuracy minus control, each seed against itself. `never had O_PT` "
    "was pretrained without it.\n\n"
  )
  return Made(
    title=f"Linear probes ({facts['config']['name']})",
    sections=[("At the last block", text + _table(probes))],
    figures={"figure": _figure(rows, probes, facts)},
    verdict=markdown_claims(claims),
  )


def _settings(probes: list[Row]) -> list[tuple[str, list[Row]]]:
  """(name, rows) of every setting."""
  found = group(probes, *_SETTING)
  tokens = len({family for _, _, family in found}) > len({task for task, _, _ in found})
  return [
    (named(own[0], "task", "pretraining_steps") + (f", {FAMILIES[family]}" if tokens else ""), own)
    for (*_, family), own in found.items()
  ]


def _models(own: list[Row]) -> list[tuple[str, list[Row]]]:
  """(name, rows) of every model of one prior, the pretrained one first."""
  found = [("pretrained", select(own, model="pretrain"))]
  tuned = group(select(own, model="finetune"), *_TUNED).values()
  return found + [(named(cells[0], "target", "learning_rate", "c_tr", "mix"), cells) for cells in tuned]


def _last(cells: list[Row], reads: str) -> list[Row]:
  return select(cells, reads=reads, block=max(present(cells, "block")))


def _kept(rows: list[Row], probes: list[Row], c_tr: float) -> Claim:
  findings = []
  for name, of_setting in _settings(probes):
    guess = _guess(rows, of_setting)
    for prior in by_prior(of_setting):
      (_, base), *tuned = _models(select(of_setting, prior=prior))
      before = _last(base, "pt")
      for model, cells in tuned:
        if not select(cells, c_tr=c_tr):
          continue
        after = _last(cells, "pt")
        change = paired_summary(after, base=before)
        text = f"{format_cell(before)} to {format_cell(after)} ({format_points(change)} points)"
        read = mean_of(before) > guess + _KEPT
        answer, why = (judge(change, above=-_KEPT), "") if read else (NOT_JUDGED, ": not read before, about the guess")
        findings.append(Finding(f"{name}, {prior} prior, {model}", answer, text + why))
  return claim_of_models(f"C_Tr = {c_tr:g}: probes of the last block read O_PT as well as before fine-tuning", findings)


def _informative(rows: list[Row], probes: list[Row]) -> Claim:
  """A probe that reads O_PT from a model that never had it says nothing."""
  findings = []
  for setting, own in _settings(probes):
    never, guess = _last(select(own, model="never"), "pt"), _guess(rows, own)
    negative = _values(never)
    for prior in by_prior(own):
      name, cells = f"{setting}, {prior} prior", _last(select(own, prior=prior, model="pretrain"), "pt")
      accuracy = _values(cells)
      if not accuracy or len(accuracy) != len(negative):
        findings.append(Finding(name, NOT_JUDGED, "a seed diverged"))
        continue
      means_of = [100 * value for value in (np.mean(accuracy), np.mean(negative), guess)]
      text = "{:.1f} % against {:.1f} % without O_PT, guess {:.1f} %".format(*means_of)
      text += ", saturated" if saturated(accuracy, negative_R=negative, guess=guess) else ""
      findings.append(Finding(name, judge(paired_summary(cells, base=never), above=_KEPT), text))
  return claim_of_models("Probes of the last block tell a model with O_PT from one that never had it", findings)


def _guess(rows: list[Row], own: list[Row], reads: str = "pt") -> float:
  return select(rows, stage="probe", metric="guess_baseline", task=own[0]["task"], reads=reads)[0]["value"]


def _values(cells: list[Row]) -> list[float]:
  return [row["value"] for row in sorted(cells, key=lambda row: row["seed"]) if row["value"] is not None]


def _table(probes: list[Row]) -> str:
  lines = []
  for setting, own in _settings(probes):
    models = [(prior, *model) for prior in by_prior(own) for model in _models(select(own, prior=prior))]
    models.append(("", "never had O_PT", select(own, model="never")))
    for prior, name, cells in models:
      for reads in ("pt", "ft"):
        accuracy, control = _last(cells, reads), _last(cells, f"control_{reads}")
        gain = format_points(paired_summary(accuracy, base=control))
        lines.append((setting, prior, name, f"O_{reads.upper()}", format_cell(accuracy), format_cell(control), gain))
  return markdown_table(("task", "prior", "model", "reads", "accuracy", "control", "selectivity, points"), lines)


def _figure(rows: list[Row], probes: list[Row], facts: dict):
  panels = []
  for setting, own in _settings(probes):
    for reads in ("pt", "ft"):
      guess = {"guess": _guess(rows, own, reads)}
      for prior in by_prior(own):
        models = _models(select(own, prior=prior))
        series = [_line(cells, reads, name) for name, cells in models]
        series.append(_line(select(own, model="never"), reads, "never had O_PT", style="--", colour="#000000"))
        control = f"control_{reads}"
        series.append(_line(models[0][1], control, "pretrained, control labels", style=":", colour="#777777"))
        panels.append(Panel(f"{setting}, {prior} prior", "block", f"probe of O_{reads.upper()}, %", series, guess))
  columns = max(len(by_prior(probes)), 2)
  return lines_figure(panels, title="What linear probes read", footer=footer(facts), columns=columns)


def _line(cells: list[Row], reads: str, label: str, **look) -> Series:
  return means(select(cells, reads=reads), "block", label=label, **look)


REPORT = Report(make, reads=("probes",), needs=("finetune.priors",))
