"""Figures 9, 26-30, 76-78, Table 4 and randFT: how soon reverse fine-tuning revives O_PT, beside Scr. + FT.

Where a network without any training was trained too (Scr.), it is a second control.
"""

import itertools
import math

from experiments.reports import REVERSED, Made, Report, baseline_section, footer, guesses, last_step, means, present
from experiments.reports.names import order_of, task_name
from experiments.reports.passages import (
  counted,
  median_text,
  models_of,
  not_to_judge,
  passages,
  ratio_text,
  recovered,
  sooner,
)
from finetune_wrappers.reporting.claims import NOT_JUDGED, Claim, Finding, claim_of_models, markdown_claims
from finetune_wrappers.reporting.plots import Panel, Series, lines_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.style import PALETTE
from finetune_wrappers.reporting.tables import format_cell, markdown_table
from finetune_wrappers.statistics import bootstrap_median_ratio

_CONTROLS = {"scratch_ft": "Scr. + FT", "scratch": "Scr."}
_STYLES = {"ft": "-", "random": "-."}
_AS_FAST = 2.0  # "about as fast": in no more than twice the iterations


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Curves, median iterations to the threshold and their ratio to the control's."""
  del arrays
  threshold = facts["config"]["reft"]["threshold"]
  curves = select(rows, metric="acc_pt", c_te=0, stage=("reft", *_CONTROLS))
  lines, claims = [], []
  for task, rate, steps in comparisons(curves):
    cells = cells_of(curves, task, rate, steps)
    lines += table_lines(task, rate, cells, threshold)
    claims += [compare(task, rate, cells, threshold, control) for control in _controls(cells)]
    claims += [recovery_claim(task, rate, cells, threshold), *wrong_answers_claims(task, rate, cells, threshold)]
  for task in sorted(present(curves, "task"), reverse=True):
    claims += rate_claims(task, select(curves, task=task), threshold)
  header = (
    "reFT", "model", "Acc. O_PT at the start", "at the end", f"median iterations to {threshold:.0%}",
    "Scr. + FT's median over it",
  )  # fmt: skip
  text = (
    f"Acc. O_PT at C_Te = 0 and iterations until it reaches {threshold:.0%}; a run that never does counts as censored "
    "(`> steps`, `k of n`). A run that fine-tuning left at the threshold has nothing to revive: it counts neither here "
    "nor in the claims, but where all of a model's runs are such the line says where they stand. A claim about ratios "
    "is `yes` only where the whole interval of every ratio says so, from three seeds on. The ratio has a percentile "
    "bootstrap interval over seeds, which few seeds make too narrow, and which reaches from the evaluation before each "
    "passage to the one that saw it; where the control never gets there it is a lower bound. The median of two runs is "
    "the earlier one.\n\n"
  )
  return Made(
    title=f"Reverse fine-tuning against Scr. + FT ({facts['config']['name']})",
    sections=[
      ("Revival", text + markdown_table(header, lines)),
      baseline_section(rows, "data"),
    ],
    figures={"figure": _figure(rows, curves, threshold, facts)},
    verdict=markdown_claims(claims),
  )


def comparisons(curves: list[Row]) -> list[tuple]:
  """(task, reFT rate, n_iters) of everything that was reverse fine-tuned."""
  return sorted(group(select(curves, stage="reft"), "task", "reft_learning_rate", "pretraining_steps"), reverse=True)


def cells_of(curves: list[Row], task: str, rate: float, steps: int | None) -> list[Row]:
  """The models of one comparison, with the controls of the same n_iters; Scr. has none."""
  cells = select(curves, task=task, reft_learning_rate=rate)
  return [row for row in cells if row["stage"] == "scratch" or row.get("pretraining_steps") == steps]


def _controls(cells: list[Row]) -> list[str]:
  return [kind for kind in _CONTROLS if kind == "scratch_ft" or select(cells, stage=kind)]


def where(task: str, rate: float | None, cells: list[Row]) -> str:
  """What a claim is about: `Counting, reFT at 0.0001, n_iters 50000`; without the rate if it is None."""
  n_iters = ", ".join(str(steps) for steps in present(select(cells, stage="reft"), "pretraining_steps"))
  at = "" if rate is None else f", reFT at {rate:g}"
  return f"{task_name(task)}{at}" + (f", n_iters {n_iters}" if n_iters else "")


def table_lines(task: str, rate: float, cells: list[Row], threshold: float) -> list[tuple]:
  """The table's lines for one task and one reFT rate, from Acc. O_PT rows at C_Te = 0."""
  control = passages(select(cells, stage="scratch_ft"), threshold)
  about, lines = where(task, rate, cells), []
  for setting, own in models_of(cells):
    times = passages(own, threshold)
    ratio = bootstrap_median_ratio(numerator=control, denominator=times) if times and control else None
    median = median_text(own, threshold)
    lines.append((about, setting.label, *_ends(counted(own, threshold) or own), median, ratio_text(ratio)))
  for kind in _controls(cells):
    own = select(cells, stage=kind)
    lines.append((about, _CONTROLS[kind], *_ends(own), median_text(own, threshold), ""))
  return lines


def compare(task: str, rate: float, cells: list[Row], threshold: float, control: str = "scratch_ft") -> Claim:
  """Is O_PT back sooner than the control learns it? From Acc. O_PT rows at C_Te = 0 of one task and reFT rate."""
  name, learned = _CONTROLS[control], median_text(select(cells, stage=control), threshold)
  text = f"{where(task, rate, cells)}: O_PT is back (Acc. {threshold:.0%}) sooner than {name} learns it"
  claim = claim_of_models(text, sooner_than(cells, threshold, control))
  return Claim(claim.text, claim.answer, f"{claim.evidence}; {name}: {learned} iterations")


def sooner_than(cells: list[Row], threshold: float, control: str = "scratch_ft") -> list[Finding]:
  """The findings of `compare`, one for each fine-tuned model, in the order of `models_of`."""
  control_rows = select(cells, stage=control)
  control_times, learned = passages(control_rows, threshold), median_text(control_rows, threshold)
  findings = []
  for setting, own in models_of(cells):
    times, reason = passages(own, threshold), not_to_judge(own, threshold)
    if reason or not control_times:
      findings.append(Finding(setting.label, NOT_JUDGED, reason or f"{_CONTROLS[control]} {learned}"))
    else:
      ratio = bootstrap_median_ratio(numerator=control_times, denominator=times)
      evidence = f"{median_text(own, threshold)} iterations, ratio {ratio_text(ratio)}"
      findings.append(sooner(setting.label, ratio, min(len(times), len(control_times)), evidence))
  return findings


def recovery_claim(task: str, rate: float, cells: list[Row], threshold: float) -> Claim:
  """Does reFT bring O_PT back by its end?"""
  found = [recovered(setting.label, own, threshold) for setting, own in models_of(cells)]
  return claim_of_models(f"{where(task, rate, cells)}: Acc. O_PT ends above {threshold:.0%}", found)


def wrong_answers_claims(task: str, rate: float, cells: list[Row], threshold: float) -> list[Claim]:
  """Is O_PT back as fast after randFT as after plain fine-tuning? No claim where only one of them was run."""
  models = dict(models_of(cells))
  findings = []
  for setting, own in models.items():
    plain = models.get(setting._replace(target="ft"))
    if setting.target != "random" or plain is None:
      continue
    name = setting._replace(target="ft").label
    reasons = {"randFT": not_to_judge(own, threshold), "plain": not_to_judge(plain, threshold)}
    if any(reasons.values()):
      text = ", ".join(f"{what}: {why}" for what, why in reasons.items() if why)
      findings.append(Finding(name, NOT_JUDGED, text))
    else:
      findings.append(_as_fast(name, plain, own, threshold))
  text = (
    f"{where(task, rate, cells)}: after randFT O_PT is back about as fast as after plain fine-tuning (in at most "
    f"{_AS_FAST:g} times the iterations)"
  )
  return [claim_of_models(text, findings)] if findings else []


def _as_fast(name: str, plain: list[Row], wrong: list[Row], threshold: float) -> Finding:
  ratio = bootstrap_median_ratio(numerator=passages(wrong, threshold), denominator=passages(plain, threshold))
  if math.isnan(ratio.ratio):
    return Finding(name, NOT_JUDGED, f"neither is back: {median_text(wrong, threshold)} iterations")
  if ratio.lower_bound or not ratio.ratio <= _AS_FAST:
    answer = "no"
  else:
    answer = "yes" if ratio.high <= _AS_FAST else "partly"
  medians = f"{median_text(wrong, threshold)} iterations against {median_text(plain, threshold)}"
  return Finding(name, answer, f"{medians}, ratio {ratio_text(ratio)}")


def rate_claims(task: str, curves: list[Row], threshold: float) -> list[Claim]:
  """Is O_PT back the sooner, the larger reFT's rate? No claim where reFT has one rate."""
  findings = []
  for setting, own in models_of(curves):
    by_rate = {rate: select(own, reft_learning_rate=rate) for rate in present(own, "reft_learning_rate")}
    for (small, slow_rows), (large, fast_rows) in itertools.pairwise(by_rate.items()):
      name = f"{setting.label}, reFT at {large:g} against {small:g}"
      reason = not_to_judge(fast_rows, threshold) or not_to_judge(slow_rows, threshold)
      if reason:
        findings.append(Finding(name, NOT_JUDGED, reason))
        continue
      fast, slow = passages(fast_rows, threshold), passages(slow_rows, threshold)
      ratio = bootstrap_median_ratio(numerator=slow, denominator=fast)
      if math.isnan(ratio.ratio):
        findings.append(Finding(name, NOT_JUDGED, "neither is back"))
      else:
        evidence = f"ratio of median iterations {ratio_text(ratio)}"
        findings.append(sooner(name, ratio, min(len(fast), len(slow)), evidence))
  text = f"{task_name(task)}: the larger reFT's rate, the sooner O_PT is back (Acc. {threshold:.0%})"
  return [claim_of_models(text, findings)] if findings else []


def _ends(own: list[Row]) -> tuple[str, str]:
  """Accuracy before the first step and after the last."""
  return format_cell([row for row in own if row["step"] == 0]), format_cell(last_step(own))


def _figure(rows: list[Row], curves: list[Row], threshold: float, facts: dict):
  """A panel for each comparison and prior; colours: fine-tuning, dashes: what it trained."""
  plain = dict.fromkeys(setting._replace(target="ft", prior=None) for setting, _ in models_of(curves))
  colours = dict(zip(plain, itertools.cycle(PALETTE[:-1]), strict=False))  # black is the controls'
  panels = []
  for task, rate, steps in comparisons(curves):
    cells = cells_of(curves, task, rate, steps)
    guess = {name: value for name, value in guesses(rows, task, 0).items() if name.endswith("PT")}
    for prior in sorted({setting.prior for setting, _ in models_of(cells)}, key=lambda name: order_of(name or "")):
      title = where(task, rate, cells) + (f", {prior} prior" if prior else "")
      series = _lines(cells, prior, colours)
      baselines = {"threshold": threshold, **guess}
      panels.append(Panel(title, "reFT iteration", "Acc. O_PT at C_Te = 0, %", series, baselines, xscale="symlog"))
  columns = min(max(len(present(curves, "reft_learning_rate")), 3), 4)
  title = "Reverse fine-tuning, beside models that never had O_PT"
  return lines_figure(panels, title=title, footer=footer(facts), columns=columns)


def _lines(cells: list[Row], prior: str | None, colours: dict) -> list[Series]:
  series = []
  for setting, own in models_of(cells):
    if setting.prior == prior:
      colour, label = colours[setting._replace(target="ft", prior=None)], setting._replace(prior=None).label
      series.append(means(own, "step", label=label, style=_STYLES[setting.target], colour=colour))
  for kind, style in zip(_controls(cells), ("--", ":"), strict=False):
    series.append(means(select(cells, stage=kind), "step", label=_CONTROLS[kind], style=style, colour="#000000"))
  return series


REPORT = Report(make, reads=("behaviour", "data"), limits=REVERSED)
