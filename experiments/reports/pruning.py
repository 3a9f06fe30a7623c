"""Figures 55-59: what zeroing a few weights or neurons brings back."""

import dataclasses
import math

from matplotlib.figure import Figure

from experiments.reports import Made, Report, baseline_section, footer, mean_of, means, present, pruning_guess
from experiments.reports.histograms import histograms
from experiments.reports.names import named, task_name
from experiments.reports.single_weights import single_weights
from finetune_wrappers.reporting.claims import (
  NOT_JUDGED,
  Claim,
  Finding,
  claim_of_models,
  judge,
  judge_below,
  markdown_claims,
  weakest,
)
from finetune_wrappers.reporting.plots import Panel, Series, lines_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, format_cell, format_points, markdown_table, paired_summary

# The last three are None for compiled models.
_MODEL = ("setting", "learning_rate", "target", "prior", "pretraining_steps", "mix")
_STYLES = {"gradient": "-", "gradient_iterative": "--", "random": ":"}
_LIFT = 0.1  # what counts as brought back


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Curves by K, the best K of each model beside random pruning, and, where measured, single weights and labels."""
  del arrays
  curves = select(rows, stage="prune", metric="acc_pt", c_te=0)
  claims = curve_claims(curves, rows) + _falls(curves, select(rows, stage="prune", metric="acc_ft", c_te=1))
  sections = [("By K", _table(rows))]
  figures = _figures(rows, facts)
  for part in (single_weights(rows, facts), histograms(rows, facts)):
    if part is not None:
      # What was asked for goes first; the curves stay as its context, if they have more than a beginning and an end.
      context = {"figure_by_k": figures["figure"]} if len(present(curves, "k")) > 2 else {}
      figures = {**figures, "figure": part.figure, **context}
      sections.insert(0, part.section)
      claims = part.claims + claims
  return Made(
    title=f"Pruning fine-tuned models ({facts['config']['name']})",
    sections=[*sections, baseline_section(rows, "prune")],
    figures=figures,
    verdict=markdown_claims(claims),
  )


def curve_claims(curves: list[Row], rows: list[Row]) -> list[Claim]:
  """For each task and scope: does the paper's score bring Acc. O_PT (C_Te = 0) back at C_Tr = 1, and not at C_Tr = 0?

  Args:
    curves: Acc. O_PT at C_Te = 0 by K.
    rows: of the experiment, for the guess baselines: an accuracy that does not exceed them may be one answer to all.
  """
  claims = []
  for (task, unit, scope), own in group(curves, "task", "unit", "scope").items():
    guess = next(iter(pruning_guess(rows, task).values()))
    for c_tr, text in (
      (1.0, "zeroing few lifts Acc. O_PT by 10 points, by 10 points more than random, and above the guess"),
      (0.0, "zeroing few brings nothing back (lifts Acc. O_PT by less than 10 points)"),
    ):
      cells = select(own, c_tr=c_tr)
      findings = [
        _finding(_name(of_model[0]), of_model, guess if c_tr == 1.0 else None)
        for _, of_model in _models(cells)
        if select(of_model, score="gradient")
      ]
      if findings:
        claims.append(claim_of_models(f"{task_name(task)}, C_Tr = {c_tr:g}, {unit}s ({scope}): {text}", findings))
  return claims


def _falls(curves: list[Row], of_ft: list[Row]) -> list[Claim]:
  """PCFG, Fig. 7: where zeroing brings Acc. O_PT back best, does Acc. O_FT fall where the correlation holds?"""
  claims = []
  for (task, unit, scope), own in group(select(curves, setting="pcfg", c_tr=1.0), "task", "unit", "scope").items():
    findings = []
    for model, cells in _models(select(own, score="gradient")):
      best = _best_k(cells)
      asked = dict(zip(_MODEL, model, strict=True)) | {"task": task, "unit": unit, "scope": scope, "c_tr": 1.0}
      before, after = (select(of_ft, score="gradient", k=k, **asked) for k in (0, best))
      evidence = f"{format_cell(before)} to {format_cell(after)} at K = {best}"
      findings.append(Finding(_name(cells[0]), judge(paired_summary(before, base=after), above=_LIFT), evidence))
    text = f"{task_name(task)}, C_Tr = 1, {unit}s ({scope}): at that K Acc. O_FT falls by 10 points at C_Te = 1"
    claims.append(claim_of_models(text, findings))
  return claims


def _best_k(cells: list[Row]) -> int:
  """The K above 0 with the highest mean over seeds, which favours a lift."""
  return max((k for k in present(cells, "k") if k), key=lambda k: mean_of(select(cells, k=k)))


def _models(cells: list[Row]) -> list[tuple[tuple, list[Row]]]:
  """Rows of each fine-tuned model, largest learning rate first."""
  return sorted(group(cells, *_MODEL).items(), key=lambda item: -item[0][1])


def _name(row: Row) -> str:
  return named(row, "prior", "pretraining_steps", "target", "learning_rate", "mix")


def _finding(name: str, cells: list[Row], guess: float | None) -> Finding:
  """One model at its best K above 0.

  Args:
    name: of the model.
    cells: its Acc. O_PT by score and K.
    guess: where a lift beyond random's and the guess is claimed (C_Tr = 1); None where none is (C_Tr = 0).
  """
  by_k = {k: select(cells, score="gradient", k=k) for k in present(select(cells, score="gradient"), "k")}
  before = by_k.pop(0)
  if math.isnan(mean_of(before)):
    return Finding(name, NOT_JUDGED, format_cell(before))
  if mean_of(before) > 1 - _LIFT:
    return Finding(name, NOT_JUDGED, f"Acc. O_PT {format_cell(before)} before pruning: nothing to bring back")
  best = _best_k(select(cells, score="gradient"))
  random = select(cells, score="random", k=best)
  lift = paired_summary(by_k[best], base=before)
  if guess is not None:
    beyond, pruned = paired_summary(by_k[best], base=random), cell_summary(by_k[best])
    answer = weakest(judge(lift, above=_LIFT), judge(beyond, above=_LIFT), judge(pruned, above=guess))
  else:
    answer = judge_below(lift, below=_LIFT)
  text = f"{format_cell(before)} to {format_cell(by_k[best])} at the best K = {best} ({format_points(lift)} points)"
  text += f", random {format_cell(random)}"
  return Finding(name, answer, text if guess is None else f"{text}, guess {100 * guess:.1f}")


def _table(rows: list[Row]) -> str:
  lines = []
  cells = select(rows, stage="prune", metric=("acc_pt", "acc_ft"), c_te=0)
  ks = present(cells, "k")
  wanted = (0, 1, 2, 4, 10, 20) if max(ks) <= 20 else (0, 5, 10, 20, 50, 100)
  chosen = sorted({min(ks, key=lambda k: abs(k - want)) for want in wanted})  # the nearest that was measured
  for (task, c_tr, unit, scope, *_), own in group(cells, "task", "c_tr", "unit", "scope", *_MODEL).items():
    for score in dict.fromkeys(row["score"] for row in own):
      for metric in ("acc_pt", "acc_ft"):
        values = [format_cell(select(own, score=score, metric=metric, k=k)) for k in chosen]
        lines.append(
          (task_name(task), _name(own[0]), f"{c_tr:g}", f"{unit}, {scope}", score, f"O_{metric[-2:].upper()}", *values)
        )
  header = ("task", "model", "C_Tr", "unit, scope", "score", "Acc.", *(f"K = {k}" for k in chosen))
  text = (
    "Accuracies in percent at C_Te = 0. `random` is the mean over draws of random pruning, `random_best` the best draw "
    "at each K, chosen on the test set: an upper end, not an estimate.\n\n"
  )
  return text + markdown_table(header, lines)


def _figures(rows: list[Row], facts: dict) -> dict[str, Figure]:
  """One for each unit and scope; the first is called `figure`."""
  cells = select(rows, stage="prune", metric=("acc_pt", "acc_ft"), c_te=0)
  figures = {}
  for unit in facts["config"]["pruning"]["units"]:
    for scope in facts["config"]["pruning"]["scopes"]:
      name = f"figure_{unit}_{scope.replace('/', '_')}" if figures else "figure"
      figures[name] = _figure(rows, select(cells, unit=unit, scope=scope), f"{unit}s, scope {scope}", facts)
  return figures


def _figure(rows: list[Row], cells: list[Row], what: str, facts: dict) -> Figure:
  panels = []
  for (task, *_), own in group(cells, "task", *_MODEL).items():
    for c_tr in present(own, "c_tr"):
      models = select(own, c_tr=c_tr)
      gone = ", diverged" if all(row["value"] is None for row in models) else ""
      title = f"{task_name(task)}, {_name(own[0])}, C_Tr {c_tr:g}{gone}"
      series = [] if gone else _series(models)
      panels.append(Panel(title, "K zeroed", "accuracy at C_Te = 0, %", series, pruning_guess(rows, task)))
  columns = 4 if len(panels) > 4 else 2
  return lines_figure(panels, title=f"Zeroing the K first {what}", footer=footer(facts), columns=columns)


def _series(cells: list[Row]) -> list[Series]:
  series = []
  for metric, colour in (("acc_pt", "#0072B2"), ("acc_ft", "#D55E00")):
    for score in _STYLES:
      own = select(cells, metric=metric, score=score)
      if own:
        label = f"O_{metric[-2:].upper()}, {score.replace('_', ', ')}"
        line = means(own, "k", label=label, style=_STYLES[score], colour=colour)
        # The interval of random pruning is in the table; here it would lie over the score's.
        series.append(dataclasses.replace(line, low=None, high=None) if score == "random" else line)
  return series


REPORT = Report(make, reads=("pruning",))
