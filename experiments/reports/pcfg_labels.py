"""Figure 16: label distributions of the fine-tuning data, by C_Tr and operand."""

import itertools
from typing import Any

from experiments.reports import Made, Report, baseline_section, footer, guesses, present
from experiments.reports.names import task_name
from finetune_wrappers.reporting.claims import Claim, Finding, claim_of_models, markdown_claims
from finetune_wrappers.reporting.plots import Panel, Series, lines_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import markdown_table

_APART = 0.1  # total variation distance of two samples of 10 000 from one distribution over 40 labels: about 0.05
_MOST = 0.25  # natural text gives the commonest count 35 %


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """A table of how broad and how far apart, three claims, and the distributions."""
  del arrays
  shares = [row for row in select(rows, metric="label_share", stage="data") if "c_tr" in row]
  found = {key: _histogram(own) for key, own in group(shares, "task", "operand", "c_tr").items()}
  claims = [_alike(found), _same_for_both(found), _broad(found)]
  return Made(
    title="Labels of fine-tuning",
    sections=[("Labels", _table(found)), baseline_section(rows, "data")],
    figures={"figure": _figure(rows, shares, facts)},
    verdict=markdown_claims(claims),
  )


def _histogram(rows: list[Row]) -> dict[int, float]:
  return {int(row["label"]): row["value"] for row in rows}


def _distance(one: dict[int, float], other: dict[int, float]) -> float:
  """Total variation: the largest difference in the probability of any set of labels."""
  return sum(abs(one.get(label, 0.0) - other.get(label, 0.0)) for label in one.keys() | other.keys()) / 2


def _alike(found: dict) -> Claim:
  findings = []
  for task, operand in dict.fromkeys(key[:2] for key in found):
    own = [histogram for key, histogram in found.items() if key[:2] == (task, operand)]
    most = max((_distance(a, b) for a, b in itertools.combinations(own, 2)), default=0.0)
    name = f"{task_name(task)}, O_{operand.upper()}"
    findings.append(Finding(name, "yes" if most < _APART else "no", f"largest distance of two C_Tr {most:.3f}"))
  return claim_of_models(f"Labels are alike at every C_Tr (total variation distance below {_APART:g})", findings)


def _same_for_both(found: dict) -> Claim:
  findings = []
  for task, c_tr in dict.fromkeys((key[0], key[2]) for key in found):
    apart = _distance(found[task, "pt", c_tr], found[task, "ft", c_tr])
    name = f"{task_name(task)}, C_Tr {c_tr:g}"
    findings.append(Finding(name, "yes" if apart < _APART else "no", f"distance of O_PT and O_FT {apart:.3f}"))
  return claim_of_models(f"Labels are alike for both operands (total variation distance below {_APART:g})", findings)


def _broad(found: dict) -> Claim:
  findings = []
  for (task, operand, c_tr), histogram in found.items():
    most = max(histogram.values())
    name = f"{task_name(task)}, O_{operand.upper()}, C_Tr {c_tr:g}"
    findings.append(Finding(name, "yes" if most < _MOST else "no", f"commonest label {100 * most:.1f} %"))
  return claim_of_models(f"Labels are broad (the commonest below {_MOST:.0%})", findings)


def _table(found: dict) -> str:
  lines = [
    (
      task_name(task),
      f"O_{operand.upper()}",
      f"{c_tr:g}",
      f"{min(h)} to {max(h)}",
      len(h),
      f"{100 * max(h.values()):.1f}",
    )
    for (task, operand, c_tr), h in found.items()
  ]
  return markdown_table(("task", "operand", "C_Tr", "labels", "how many", "commonest, %"), lines)


def _figure(rows: list[Row], shares: list[Row], facts: dict):
  panels = []
  look: dict[str, Any] = {"percent": False, "from_zero": True}
  for (task, operand), own in group(shares, "task", "operand").items():
    series = []
    for c_tr in present(own, "c_tr"):
      histogram = sorted(_histogram(select(own, c_tr=c_tr)).items())
      x, y = zip(*histogram, strict=True)
      series.append(Series(label=f"C_Tr {c_tr:g}", x=x, y=[100 * share for share in y], style="-"))
    name = f"O_{operand.upper()}"
    guess = {"guess, test set": 100 * guesses(rows, task, 0)[f"guess {name}"]}
    panels.append(Panel(f"{task_name(task)}, {name}", "label", "share of strings, %", series, guess, **look))
  title = "Labels of fine-tuning by C_Tr"
  return lines_figure(panels, title=title, footer=footer(facts, intervals=False), columns=2, ordered=True)


REPORT = Report(make, reads=("data",), needs=("counting",))
