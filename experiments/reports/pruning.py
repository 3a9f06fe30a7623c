"""Figures 55-59: what zeroing a few weights or neurons brings back."""

from experiments.reports import TASKS, Made, baseline_section, footer, guesses, means, present, rate_name
from experiments.reports.histograms import histograms
from experiments.reports.single_weights import single_weights
from finetune_wrappers.reporting.claims import Claim, markdown_claims
from finetune_wrappers.reporting.plots import Panel, Series, lines_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, format_cell, markdown_table

_MODEL = ("task", "learning_rate", "c_tr", "unit", "scope")
_STYLES = {"gradient": "-", "random": ":"}


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Curves by K, the best K of each model beside random pruning, and, where measured, single weights and classes."""
  del arrays
  curves = select(rows, stage="prune", metric="acc_pt", c_te=0)
  claims = curve_claims(curves)
  sections = [("By K", _table(rows))]
  figures = {"figure": _figure(rows, facts)}
  for part in (single_weights(rows, facts), histograms(rows, facts)):
    if part is not None:
      # What was asked for goes first; the curves stay as its context.
      figures = {"figure": part.figure, "figure_by_k": figures["figure"]}
      sections.insert(0, part.section)
      claims = part.claims + claims
  return Made(
    title=f"Pruning fine-tuned Tracr models ({facts['config']['name']})",
    sections=[("Claims", markdown_claims(claims)), *sections, baseline_section(rows)],
    figures=figures,
    short=markdown_claims(claims),
  )


def curve_claims(curves: list[Row]) -> list[Claim]:
  """For each task and scope: does the paper's score lift Acc. O_PT (C_Te = 0) at C_Tr = 1 beyond random pruning?"""
  claims = []
  for (task, unit, scope), own in group(curves, "task", "unit", "scope").items():
    found = []
    for rate in sorted(present(own, "learning_rate"), reverse=True):
      cells = select(own, learning_rate=rate, c_tr=1.0)
      gain, text = _gain(cells)
      if text:
        found.append((gain >= 0.1, f"{rate_name(rate)}: {text}"))
    if not found:
      continue
    holds = [ok for ok, _ in found]
    answer = "yes" if all(holds) else "partly" if any(holds) else "no"
    name = f"{TASKS[task]}, C_Tr = 1, {unit}s ({scope}): zeroing few lifts Acc. O_PT by 10 points more than random"
    claims.append(Claim(name, answer, "; ".join(text for _, text in found)))
  return claims


def _gain(cells: list[Row]) -> tuple[float, str]:
  """(best mean over K, minus random pruning's at that K or no pruning's, whichever is higher; the numbers).

  K is chosen on the mean over seeds.
  """
  by_k = {k: cell_summary(select(cells, score="gradient", k=k)) for k in present(select(cells, score="gradient"), "k")}
  alive = {k: cell for k, cell in by_k.items() if cell.n > cell.n_diverged}
  if 0 not in alive:
    return 0.0, ""
  best = max(alive, key=lambda k: alive[k].mean)
  random = cell_summary(select(cells, score="random", k=best))
  texts = [format_cell(select(cells, score="gradient", k=k)) for k in (0, best)]
  text = f"{texts[0]} to {texts[1]} at K = {best}, random {format_cell(select(cells, score='random', k=best))}"
  return alive[best].mean - max(random.mean, alive[0].mean), text


def _table(rows: list[Row]) -> str:
  lines = []
  chosen = (0, 1, 2, 4, 10, 20)
  for model, own in group(select(rows, stage="prune", metric=("acc_pt", "acc_ft"), c_te=0), *_MODEL).items():
    for score in dict.fromkeys(row["score"] for row in own):
      for metric in ("acc_pt", "acc_ft"):
        cells = [format_cell(select(own, score=score, metric=metric, k=k)) for k in chosen]
        task, rate, c_tr, unit, scope = model
        lines.append(
          (TASKS[task], rate_name(rate), f"{c_tr:g}", f"{unit}, {scope}", score, f"O_{metric[-2:].upper()}", *cells)
        )
  header = ("task", "rate", "C_Tr", "unit, scope", "score", "Acc.", *(f"K = {k}" for k in chosen))
  text = (
    "Accuracies in percent at C_Te = 0. `random` is the mean over draws of random pruning, `random_best` the best draw "
    "at each K, chosen on the test set: an upper end, not an estimate.\n\n"
  )
  return text + markdown_table(header, lines)


def _figure(rows: list[Row], facts: dict):
  first = {"scope": facts["config"]["pruning"]["scopes"][0], "unit": facts["config"]["pruning"]["units"][0]}
  cells = select(rows, stage="prune", metric=("acc_pt", "acc_ft"), c_te=0, **first)
  panels = []
  for (task, rate), own in group(cells, "task", "learning_rate").items():
    for c_tr in present(own, "c_tr"):
      title = f"{TASKS[task]}, {rate_name(rate)}, C_Tr {c_tr:g}"
      guess = {name: value for name, value in guesses(rows, task, 0).items() if name.endswith("PT")}
      series = _series(select(own, c_tr=c_tr))
      panels.append(Panel(title, "K zeroed", "accuracy at C_Te = 0, %", series, guess))
  columns = 4 if len(panels) > 4 else 2
  return lines_figure(panels, title=f"Zeroing the K first {first['unit']}s", footer=footer(facts), columns=columns)


def _series(cells: list[Row]) -> list[Series]:
  series = []
  for metric, colour in (("acc_pt", "#0072B2"), ("acc_ft", "#D55E00")):
    for score in ("gradient", "random"):
      own = select(cells, metric=metric, score=score)
      if own:
        label = f"O_{metric[-2:].upper()}, {score}"
        series.append(means(own, "k", label=label, style=_STYLES[score], colour=colour))
  return series
