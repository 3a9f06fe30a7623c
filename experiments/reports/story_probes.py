"""Figures 35-38: linear probes of every feature, between models pretrained with the deleted feature and without."""

import math

from experiments.reports import Made, Report, footer, means, present
from experiments.reports.stories import models_of
from finetune_wrappers.reporting.claims import NOT_JUDGED, Claim, Finding, claim_of_models, judge, markdown_claims
from finetune_wrappers.reporting.plots import Panel, Series, lines_figure
from finetune_wrappers.reporting.rows import Row, select
from finetune_wrappers.reporting.tables import (
  format_accuracy,
  format_cell,
  format_points,
  markdown_table,
  paired_summary,
)

_APART = 0.02  # references whose probes differ by less say nothing about what lies between
_REFERENCES = {"pretrain": "pretrained with it", "never": "pretrained without it"}
_STYLES = ("s-", "v--")


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Accuracy by block for every feature, and where deleted models lie between the references."""
  del arrays
  config = facts["config"]
  text = (
    "Accuracy in percent on held-out stories at the last block. `pretrained with it` read all stories in pretraining, "
    f"`pretrained without it` none with {config['stories']['feature']}; the others are the former after deletion. "
    "`guess` is always giving the commoner label; `control` is a label that means nothing: a coin thrown for each "
    f"token, of which a story has the one of its token number {config['probes']['last']} from the end.\n\n"
  )
  return Made(
    title=f"Probes of what stories have ({facts['config']['name']})",
    sections=[("At the last block", text + _table(rows))],
    figures={"figure": figure(rows, facts, present(select(rows, stage="probe"), "reads"))},
    verdict=markdown_claims([kept_claim(rows, config["stories"]["feature"]), control_claim(rows)]),
  )


def kept_claim(rows: list[Row], feature: str) -> Claim:
  """Do probes of deleted models stay nearer to those of models with the feature than of models without?"""
  findings = []
  own = _last(select(rows, stage="probe", metric="acc_probe", reads=feature))
  upper, lower = (select(own, model=model) for model in _REFERENCES)
  apart = paired_summary(upper, base=lower)
  for name, cells in models_of(select(own, model="finetune"), "probe"):
    text = f"{format_cell(cells)} between {format_cell(lower)} and {format_cell(upper)}"
    text += f", which are {format_points(apart)} points apart"
    if not apart.mean > _APART:
      findings.append(Finding(name, NOT_JUDGED, f"{text}: more than {100 * _APART:.0f} are needed"))
      continue
    middle = [{**low, "value": _half(low, upper)} for low in lower]
    above = paired_summary(cells, base=middle)
    answer = judge(above, above=0.0)
    if answer == "yes" and judge(apart, above=0.0) != "yes":
      answer = "partly"  # between which values it lies is not certain
    findings.append(Finding(name, answer, f"{text}; {format_points(above)} points from half-way"))
  return claim_of_models(
    f"Probes read {feature} after deletion, nearer to the upper reference than to the lower", findings
  )


def control_claim(rows: list[Row]) -> Claim:
  """Do probes of models pretrained with the feature read features better than a label that means nothing?

  Labels differ in how often a guess is right, so what counts is the share of a guess's errors that a probe avoids.
  """
  own, findings = _last(select(rows, stage="probe", metric="acc_probe", model="pretrain")), []
  for feature in present(own, "reads"):
    if feature == "control":
      continue
    text = ", ".join(
      f"{reads} {format_cell(select(own, reads=reads))} (guess {format_accuracy(_guess(rows, reads))})"
      for reads in (feature, "control")
    )
    avoided, control = (_avoided(rows, select(own, reads=reads)) for reads in (feature, "control"))
    more = paired_summary(avoided, base=control)
    findings.append(
      Finding(feature, judge(more, above=0.0), f"{text}; {format_points(more)} points more of a guess's errors avoided")
    )
  return claim_of_models("Probes read features better than a label that means nothing", findings)


def figure(rows: list[Row], facts: dict, features: list[str]):
  """A panel for each feature."""
  probes, panels = select(rows, stage="probe", metric="acc_probe"), []
  for feature in features:
    own = select(probes, reads=feature)
    series: list[Series] = [
      means(cells, "block", label=name) for name, cells in models_of(select(own, model="finetune"), "probe")
    ]
    for (model, label), style in zip(_REFERENCES.items(), _STYLES, strict=True):
      series.append(means(select(own, model=model), "block", label=label, style=style, colour="#000000"))
    panels.append(Panel(feature, "block", "probe accuracy, %", series, {"guess": _guess(rows, feature)}))
  return lines_figure(panels, title="What linear probes read off the end of a story", footer=footer(facts), columns=4)


def _table(rows: list[Row]) -> str:
  probes, lines = _last(select(rows, stage="probe", metric="acc_probe")), []
  features = present(probes, "reads")
  named = [(label, select(probes, model=model)) for model, label in _REFERENCES.items()]
  for name, own in [*named, *models_of(select(probes, model="finetune"), "probe")]:
    lines.append((name, *(format_cell(select(own, reads=feature)) for feature in features)))
  lines.append(("guess", *(format_accuracy(_guess(rows, feature)) for feature in features)))
  return markdown_table(("model", *features), lines)


def _last(rows: list[Row]) -> list[Row]:
  blocks = present(rows, "block")
  return select(rows, block=blocks[-1]) if blocks else []


def _guess(rows: list[Row], feature: str) -> float:
  """The same for every model; a diverged one has none."""
  found = select(rows, stage="probe", metric="guess_baseline", reads=feature)
  return next((row["value"] for row in found if row["value"] is not None), math.nan)


def _avoided(rows: list[Row], own: list[Row]) -> list[Row]:
  """Share of a guess's errors that each probe avoids, 1 if it makes none; no value where a guess makes none."""
  found = []
  for row in own:
    guess, value = _guess(rows, row["reads"]), row["value"]
    avoided = None if value is None or guess == 1 else (value - guess) / (1 - guess)
    found.append({**row, "metric": "errors_avoided", "value": avoided})
  return found


def _half(low: Row, upper: list[Row]) -> float | None:
  high = select(upper, seed=low["seed"])[0]["value"]
  return None if low["value"] is None or high is None else (low["value"] + high) / 2


REPORT = Report(make, reads=("feature_probes",), needs=("probes.instructed",))
