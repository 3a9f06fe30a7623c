"""Figures 55 and 56: accuracies with one weight at zero, for each of W1..W4 and for random ones."""

import dataclasses
import math
from collections import Counter

from matplotlib.figure import Figure

from experiments.reports import bar_series, footer, mean_of, present, pruning_guess
from experiments.reports.names import named, task_name
from finetune_wrappers.reporting.claims import NOT_JUDGED, Claim, Finding, claim_of_models, judge, weakest
from finetune_wrappers.reporting.plots import Panel, bars_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import format_cell, format_points, markdown_table, paired_summary

_LIFT = 0.6  # "more than 60 points"
_METRICS = ("acc_pt", "acc_ft")
_MODEL = ("task", "learning_rate", "c_tr")
_RANDOM = {"random": "random weight, mean of draws", "random_best": "random weight, best draw"}


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of a pruning summary: a figure, a section and claims."""

  figure: Figure
  section: tuple[str, str]
  claims: list[Claim]


def single_weights(rows: list[Row], facts: dict) -> Part | None:
  """The part on single weights, in the first scope; None where they were not measured."""
  if not facts["config"]["pruning"]["single_weights"]:
    return None
  where = {"c_te": 0, "scope": facts["config"]["pruning"]["scopes"][0], "unit": "weight", "metric": _METRICS}
  single = select(rows, stage="prune_single", **where)
  # Models that diverged have rows here and none among the single weights.
  by_k = select(rows, stage="prune", k=(0, 1), **where)
  return Part(
    figure=_figure(rows, single, by_k, facts),
    section=("Single weights, C_Te = 0", _table(single, by_k)),
    claims=[_claim(task, single, by_k) for task in present(by_k, "task")],
  )


def _before(by_k: list[Row]) -> list[Row]:
  """Without pruning."""
  return select(by_k, score="random", k=0)


def _table(single: list[Row], by_k: list[Row]) -> str:
  lines = []
  for model, own in group(by_k, *_MODEL).items():
    task, rate, c_tr = model
    found = select(single, **dict(zip(_MODEL, model, strict=True)))
    by_rank = {rank: select(found, rank=rank) for rank in present(found, "rank")}
    cells = [(f"W{rank}", _names(weight), weight) for rank, weight in by_rank.items()]
    cells += [(name, "", select(own, score=score, k=1)) for score, name in _RANDOM.items()]
    for name, weights, after in cells:
      lifts = [
        format_points(paired_summary(select(after, metric=metric), base=select(_before(own), metric=metric)))
        for metric in _METRICS
      ]
      lines.append((task_name(task), named(own[0], "learning_rate"), f"{c_tr:g}", name, weights, *lifts))
  text = (
    "Change of accuracy, in points, when this weight alone is zeroed, each seed against itself. W1 is the weight that "
    "the gradient score ranks first. Weights by name (number of seeds); residual directions by Tracr's labels. The "
    "best draw is chosen on the test set: an upper end, not an estimate.\n\n"
  )
  return text + markdown_table(("task", "rate", "C_Tr", "zeroed", "weight", "Acc. O_PT", "Acc. O_FT"), lines)


def _names(rows: list[Row]) -> str:
  names = Counter(row["weight"] for row in select(rows, metric="acc_pt"))
  return ", ".join(f"{name} ({count})" for name, count in names.most_common())


def _claim(task: str, single: list[Row], by_k: list[Row]) -> Claim:
  where = {"task": task, "c_tr": 1.0, "metric": "acc_pt"}
  single, by_k = select(single, **where), select(by_k, **where)
  findings = [
    _finding(select(single, learning_rate=rate), select(by_k, learning_rate=rate))
    for rate in sorted(present(by_k, "learning_rate"), reverse=True)
  ]
  text = (
    f"{task_name(task)}, C_Tr = 1: zeroing one weight, the first by the gradient score (W1), lifts Acc. O_PT by more "
    "than 60 points, and by more than a random weight (C_Te = 0)"
  )
  return claim_of_models(text, findings)


def _finding(single: list[Row], by_k: list[Row]) -> Finding:
  """Judged on W1 alone: the best of W1..W4 is chosen on the test set, and stands beside the best random draw."""
  before, name = _before(by_k), named(by_k[0], "learning_rate")
  if math.isnan(mean_of(before)):
    return Finding(name, NOT_JUDGED, format_cell(before))
  if mean_of(before) > 1 - _LIFT:
    return Finding(name, NOT_JUDGED, f"Acc. O_PT {format_cell(before)} before pruning leaves no room for 60 points")
  random = {score: select(by_k, score=score, k=1) for score in _RANDOM}
  lifts = {rank: paired_summary(select(single, rank=rank), base=before) for rank in present(single, "rank")}
  first = select(single, rank=1)
  answer = weakest(
    judge(lifts[1], above=_LIFT, partly_above=_LIFT / 3),
    judge(paired_summary(first, base=random["random"]), above=0.0),
  )
  best = max(lifts, key=lambda rank: lifts[rank].mean)
  return Finding(
    name,
    answer,
    f"from {format_cell(before)} W1 {format_points(lifts[1])}, random {_lift(random['random'], before)}; best on the "
    f"test set: W{best} {format_points(lifts[best])}, random draw {_lift(random['random_best'], before)}",
  )


def _lift(after: list[Row], before: list[Row]) -> str:
  return format_points(paired_summary(after, base=before))


def _figure(rows: list[Row], single: list[Row], by_k: list[Row], facts: dict) -> Figure:
  panels = []
  for model, own in group(by_k, *_MODEL).items():
    task, rate, c_tr = model
    found = select(single, **dict(zip(_MODEL, model, strict=True)))
    ranks = present(found, "rank")
    bars = [_before(own), *(select(found, rank=rank) for rank in ranks), select(own, score="random", k=1)]
    series = [
      bar_series(f"Acc. O_{metric[-2:].upper()}", [select(bar, metric=metric) for bar in bars]) for metric in _METRICS
    ]
    title = named(own[0], "task", "learning_rate", "c_tr")
    names = ["none", *(f"W{rank}" for rank in ranks), "random"]
    guess = pruning_guess(rows, task)
    panels.append(Panel(title, "weight at zero", "accuracy at C_Te = 0, %", series, guess, categories=names))
  return bars_figure(panels, title="One weight at zero", footer=footer(facts), columns=4)
