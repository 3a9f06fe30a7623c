"""Figures 35-38: linear probes of every feature, between models pretrained with the deleted feature and without."""

import math

from experiments.reports import Made, Report, footer, mean_of, means, present
from experiments.reports.stories import models_of
from finetune_wrappers.reporting.claims import NOT_JUDGED, Claim, Finding, claim_of_models, judge, markdown_claims
from finetune_wrappers.reporting.plots import Panel, Series, lines_figure
from finetune_wrappers.reporting.rows import Row, select
from finetune_wrappers.reporting.tables import format_cell, format_points, markdown_table, paired_summary

_APART = 0.02  # references whose probes differ by less say nothing about what lies between
_REFERENCES = {"pretrain": "pretrained with it", "never": "pretrained without it"}


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Accuracy by block for every feature, and where deleted models lie between the references."""
  del arrays
  text = (
    "Accuracy in percent on held-out stories at the last block. `guess` is always giving the commoner label; `control` "
    "is a label that means nothing: a coin thrown for each token, of which a story has that of its tenth-last.\n\n"
  )
  return Made(
    title=f"Probes of what stories have ({facts['config']['name']})",
    sections=[("At the last block", text + _table(rows))],
    figures={"figure": figure(rows, facts, present(select(rows, stage="probe"), "reads"))},
    verdict=markdown_claims([kept_claim(rows, facts["config"]["stories"]["feature"]), _control_claim(rows)]),
  )


def kept_claim(rows: list[Row], feature: str) -> Claim:
  """Do probes of deleted models stay nearer to those of models with the feature than of models without?"""
  findings = []
  own = _last(select(rows, stage="probe", metric="acc_probe", reads=feature))
  upper, lower = (select(own, model=model) for model in _REFERENCES)
  apart = paired_summary(upper, base=lower)
  for name, cells in models_of(select(own, model="finetune"), "probe"):
    text = f"{format_cell(cells)} between {format_cell(lower)} and {format_cell(upper)}"
    if not apart.mean > _APART:
      findings.append(Finding(name, NOT_JUDGED, f"{text}: references no more than {100 * _APART:.0f} points apart"))
      continue
    middle = [{**low, "value": _half(low, upper)} for low in lower]
    above = paired_summary(cells, base=middle)
    findings.append(Finding(name, judge(above, above=0.0), f"{text}, {format_points(above)} points from half-way"))
  return claim_of_models(
    f"Probes read {feature} after deletion, nearer to the upper reference than to the lower", findings
  )


def _control_claim(rows: list[Row]) -> Claim:
  own = _last(select(rows, stage="probe", metric="acc_probe", model="pretrain"))
  control, findings = select(own, reads="control"), []
  for feature in present(own, "reads"):
    if feature != "control":
      gain = _over_guess(rows, own, feature) - _over_guess(rows, own, "control")
      text = f"{format_cell(select(own, reads=feature))}, control {format_cell(control)}"
      findings.append(
        Finding(feature, "yes" if gain > 0 else "no", f"{text}; over its own guess {100 * gain:+.1f} points more")
      )
  return claim_of_models("Probes read features better than a label that means nothing, each over its guess", findings)


def figure(rows: list[Row], facts: dict, features: list[str]):
  """A panel for each feature."""
  probes, panels = select(rows, stage="probe", metric="acc_probe"), []
  for feature in features:
    own = select(probes, reads=feature)
    series: list[Series] = [
      means(cells, "block", label=name) for name, cells in models_of(select(own, model="finetune"), "probe")
    ]
    for (model, label), style in zip(_REFERENCES.items(), ("s-", "s--"), strict=True):
      series.append(means(select(own, model=model), "block", label=label, style=style, colour="#000000"))
    panels.append(Panel(feature, "block", "probe accuracy, %", series, {"guess": _guess(rows, feature)}))
  return lines_figure(panels, title="What linear probes read off the end of a story", footer=footer(facts), columns=4)


def _table(rows: list[Row]) -> str:
  probes, lines = _last(select(rows, stage="probe", metric="acc_probe")), []
  features = present(probes, "reads")
  named = [(label, select(probes, model=model)) for model, label in _REFERENCES.items()]
  for name, own in [*named, *models_of(select(probes, model="finetune"), "probe")]:
    lines.append((name, *(format_cell(select(own, reads=feature)) for feature in features)))
  lines.append(("guess", *(f"{100 * _guess(rows, feature):.1f}" for feature in features)))
  return markdown_table(("model", *features), lines)


def _last(rows: list[Row]) -> list[Row]:
  blocks = present(rows, "block")
  return select(rows, block=blocks[-1]) if blocks else []


def _guess(rows: list[Row], feature: str) -> float:
  return select(rows, stage="probe", metric="guess_baseline", reads=feature)[0]["value"]


def _over_guess(rows: list[Row], own: list[Row], feature: str) -> float:
  found = mean_of(select(own, reads=feature)) - _guess(rows, feature)
  return -math.inf if math.isnan(found) else found


def _half(low: Row, upper: list[Row]) -> float | None:
  high = select(upper, seed=low["seed"])[0]["value"]
  return None if low["value"] is None or high is None else (low["value"] + high) / 2


REPORT = Report(make, reads=("feature_probes",), needs=("probes.instructed",))
