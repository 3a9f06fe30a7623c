"""Figures 55 and 56: accuracies with one weight at zero, for each of W1..W4."""

import dataclasses
from collections import Counter

import numpy as np
from matplotlib.figure import Figure

from experiments.reports import TASKS, footer, present, rate_name
from finetune_wrappers.reporting.claims import Claim
from finetune_wrappers.reporting.plots import Panel, Series, bars_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, markdown_table

_LIFT = 0.6  # "more than 60 points"


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of a pruning summary: a figure, a section and claims."""

  figure: Figure
  section: tuple[str, str]
  claims: list[Claim]


def single_weights(rows: list[Row], facts: dict) -> Part | None:
  """The part on single weights, in the first scope; None where they were not measured."""
  scope, unit = (facts["config"]["pruning"][field][0] for field in ("scopes", "units"))
  single = select(rows, stage="prune_single", c_te=0, scope=scope)
  if not single:
    return None
  before = select(rows, stage="prune", score="gradient", c_te=0, k=0, scope=scope, unit=unit)
  return Part(
    figure=_figure(single, before, facts),
    section=("Single weights, C_Te = 0", _table(single, before)),
    claims=[_claim(task, single, before) for task in present(single, "task")],
  )


def _values(rows: list[Row], before: list[Row], **where) -> list[float]:
  """For each seed the accuracy with the weight at zero minus the accuracy without pruning."""
  base = {row["seed"]: row["value"] for row in select(before, **where)}
  return [row["value"] - base[row["seed"]] for row in select(rows, **where)]


def _table(single: list[Row], before: list[Row]) -> str:
  lines = []
  for (task, rate, c_tr, rank), own in group(single, "task", "learning_rate", "c_tr", "rank").items():
    where = {"task": task, "learning_rate": rate, "c_tr": c_tr}
    names = Counter(row["weight"] for row in select(own, metric="acc_pt"))
    lifts = [_values(own, before, metric=metric, **where) for metric in ("acc_pt", "acc_ft")]
    weights = ", ".join(f"{name} ({count})" for name, count in names.most_common())
    texts = [f"{100 * np.mean(lift):+.1f} (from {100 * min(lift):+.1f} to {100 * max(lift):+.1f})" for lift in lifts]
    lines.append((TASKS[task], rate_name(rate), f"{c_tr:g}", f"W{rank}", weights, *texts))
  text = (
    "Change of accuracy, in points, when this weight alone is zeroed: mean over seeds and range. Weights by name "
    "(number of seeds); residual directions by Tracr's labels.\n\n"
  )
  return text + markdown_table(("task", "rate", "C_Tr", "rank", "weight", "Acc. O_PT", "Acc. O_FT"), lines)


def _claim(task: str, single: list[Row], before: list[Row]) -> Claim:
  best, evidence = -1.0, []
  for rate in sorted(present(select(single, task=task), "learning_rate"), reverse=True):
    where = {"task": task, "learning_rate": rate, "c_tr": 1.0, "metric": "acc_pt"}
    ranks = present(select(single, **where), "rank")
    if ranks:
      lifts = {rank: float(np.mean(_values(select(single, rank=rank), before, **where))) for rank in ranks}
      rank = max(lifts, key=lambda r: lifts[r])
      best = max(best, lifts[rank])
      evidence.append(f"{rate_name(rate)}: {100 * lifts[rank]:+.1f} points (W{rank})")
  answer = "yes" if best > _LIFT else "partly" if best > _LIFT / 3 else "no"
  text = f"{TASKS[task]}, C_Tr = 1: zeroing one weight lifts Acc. O_PT by more than 60 points (C_Te = 0)"
  return Claim(text, answer, "best of W1..W4, mean over seeds: " + "; ".join(evidence or ["all runs diverged"]))


def _figure(single: list[Row], before: list[Row], facts: dict) -> Figure:
  panels = []
  for (task, rate, c_tr), own in group(single, "task", "learning_rate", "c_tr").items():
    ranks = present(own, "rank")
    base = select(before, task=task, learning_rate=rate, c_tr=c_tr)
    series = []
    for metric in ("acc_pt", "acc_ft"):
      cells = [select(base, metric=metric)] + [select(own, metric=metric, rank=rank) for rank in ranks]
      found = [cell_summary(cell) for cell in cells]
      low, high = [c.interval.low for c in found], [c.interval.high for c in found]
      series.append(Series(f"Acc. O_{metric[-2:].upper()}", [c.mean for c in found], low=low, high=high))
    title = f"{TASKS[task]}, {rate_name(rate)}, C_Tr {c_tr:g}"
    names = ["none", *(f"W{rank}" for rank in ranks)]
    panels.append(Panel(title, "weight at zero", "accuracy at C_Te = 0, %", series, categories=names))
  return bars_figure(panels, title="One weight at zero", footer=footer(facts), columns=4)
