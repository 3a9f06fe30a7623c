"""The demo: Acc. O_PT before and after fine-tuning on O_FT, and how soon it is back, beside a model that never had it.

One table, one conclusion made from the same rows, one figure; for any task of any setting.
"""

import math

from experiments.reports import (
  PLAIN,
  REVERSED,
  Made,
  Report,
  footer,
  guesses,
  last_step,
  mean_of,
  means,
  present,
)
from experiments.reports.passages import FineTuning, counted, models_of, passages
from experiments.reports.revival import cells_of, comparisons, sooner_than, where
from finetune_wrappers.analysis import revival
from finetune_wrappers.reporting.claims import NOT_JUDGED, Finding, claim_of_models
from finetune_wrappers.reporting.plots import Panel, lines_figure
from finetune_wrappers.reporting.rows import Row, select
from finetune_wrappers.reporting.tables import format_accuracy, format_cell, markdown_table

_CONCLUSIONS = {
  "yes": (
    "O_PT came back sooner in every fine-tuned model{judged} than it was learned by a model that never had it. "
    "Fine-tuning had left something of O_PT in the weights."
  ),
  "partly": (
    "some models or seeds, but too few, say that O_PT came back sooner than it was learned by a model that never had "
    "it. These runs do not settle whether fine-tuning left something of O_PT."
  ),
  "no": (
    "O_PT came back no sooner than it was learned by a model that never had it. These runs give no sign that "
    "fine-tuning left something of O_PT."
  ),
  NOT_JUDGED: "these runs cannot tell whether fine-tuning left something of O_PT.",
}


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """All at C_Te = 0, on the one test set of training."""
  del arrays
  threshold = facts["config"]["reft"]["threshold"]
  rows = [row for row in rows if row.get("c_te") == 0]
  curves = select(rows, stage=("reft", "scratch_ft"), metric=("acc_pt", "acc_ft"))
  tables, conclusions, panels = [], [], []
  for task, rate, steps in comparisons(curves):
    cells = cells_of(curves, task, rate, steps)
    tables.append(_table(rows, task, rate, cells, threshold))
    conclusions.append(_conclusion(rows, task, rate, cells, threshold))
    panels += _panels(rows, task, rate, cells, threshold)
  text = "Accuracies in percent on strings without the correlation (C_Te = 0), on which O_PT and O_FT differ.\n\n"
  title = "Acc. O_PT while O_FT is trained, and then O_PT again"
  return Made(
    title=f"{title} ({facts['config']['name']})",
    sections=[("Accuracies", text + "\n".join(tables))],
    figures={"figure": lines_figure(panels, title=title, footer=footer(facts), columns=2)},
    verdict="\n".join(conclusions),
    table="\n".join(tables),
  )


def _before(rows: list[Row], task: str, model: FineTuning) -> list[Row]:
  """The model that was fine-tuned."""
  base = {"prior": model.prior, "pretraining_steps": model.pretraining_steps, "operand": (None, "pt")}
  return select(rows, stage=("compile", "pretrain"), task=task, **base)


def _tuned(rows: list[Row], task: str, model: FineTuning) -> list[Row]:
  return select(rows, stage="finetune", task=task, **model._asdict())


def _table(rows: list[Row], task: str, rate: float, cells: list[Row], threshold: float) -> str:
  """A line for each model, each on the same test set; the last is a guess."""
  lines, models = [], models_of(cells)

  def line(name: str, own: list[Row], until: str = "") -> None:
    lines.append((name, *(format_cell(select(own, metric=metric)) for metric in ("acc_pt", "acc_ft")), until))

  for prior in dict.fromkeys(model.prior for model, _ in models):
    of_prior = [(model, own) for model, own in models if model.prior == prior]
    before = _before(rows, task, of_prior[0][0])
    kind = "compiled for O_PT" if select(before, stage="compile") else f"pretrained, {prior} prior"
    line(kind, before)
    for model, own in of_prior:
      line(f"fine-tuned on O_FT, {model.label}", last_step(_tuned(rows, task, model)))
      line("... then on O_PT again", last_step(own), _when(own, threshold))
  control = select(cells, stage="scratch_ft")
  line("never had O_PT (Scr. + FT)", [row for row in control if row["step"] == 0])
  line("... then on O_PT", last_step(control), _when(control, threshold))
  guess = guesses(rows, task, 0)
  lines.append(("guess", *(f"{100 * guess[f'guess {operand}']:.1f}" for operand in ("O_PT", "O_FT")), ""))
  header = (where(task, rate, cells), "Acc. O_PT", "Acc. O_FT", f"O_PT at {100 * threshold:g} %")
  return markdown_table(header, lines)


def _conclusion(rows: list[Row], task: str, rate: float, cells: list[Row], threshold: float) -> str:
  """One sentence for all models, by the claim of the report `revival`; then the numbers of each."""
  guess = guesses(rows, task, 0)["guess O_PT"]
  curves = select(cells, metric="acc_pt")
  control = _when(select(curves, stage="scratch_ft"), threshold)
  found, lines = [], []
  for (model, own), finding in zip(models_of(curves), sooner_than(curves, threshold), strict=True):
    before = select(_before(rows, task, model), metric="acc_pt")
    after = last_step(select(_tuned(rows, task, model), metric="acc_pt"))
    if not mean_of(before) >= threshold:
      finding = Finding(finding.name, NOT_JUDGED, "Acc. O_PT was below that before fine-tuning")
    found.append(finding)
    reason = f" Not judged: {finding.evidence}." if finding.answer == NOT_JUDGED else ""
    lines.append(
      f"- {model.label}: fine-tuning on O_FT took Acc. O_PT from {_percent(before)} to {_percent(after)} (guess "
      f"{100 * guess:.1f} %). Trained on O_PT again, it is at {100 * threshold:g} % {_when(own, threshold)}; the model "
      f"that never had O_PT {control}.{reason}"
    )
  answer = claim_of_models("O_PT is back sooner", found).answer
  judged = " that is judged" if any(finding.answer == NOT_JUDGED for finding in found) else ""
  return f"{where(task, rate, cells)}: {_CONCLUSIONS[answer].format(judged=judged)}\n\n" + "\n".join(lines) + "\n"


def _percent(cell: list[Row]) -> str:
  """The mean as the table has it: `33.7 %`."""
  mean = mean_of(cell)
  return format_cell(cell) if math.isnan(mean) else f"{format_accuracy(mean)} %"


def _when(own: list[Row], threshold: float) -> str:
  """When the runs reached the threshold: `after 200 steps`, `in 0 of 3 runs within 1000 steps`.

  As in the claim, a fine-tuned seed that is there before the first step has nothing to say.
  """
  curves = select(own, metric="acc_pt")
  times, seeds = passages(curves, threshold), len(present(curves, "seed"))
  left = len(present(counted(curves, threshold), "seed"))
  lost = f", {left - len(times)} of {seeds} diverged" if len(times) < left else ""
  lost += f", {seeds - left} of {seeds} from the start" if left < seeds else ""
  if not times:
    return lost.removeprefix(", ")
  median = revival.median(times)
  runs = f"in {median.reached} of {median.runs} runs"
  if median.censored:
    return f"{runs} within {median.steps:.0f} steps{lost}"
  return f"after {median.steps:.0f} steps{'' if median.reached == median.runs else f' ({runs})'}{lost}"


def _panels(rows: list[Row], task: str, rate: float, cells: list[Row], threshold: float) -> list[Panel]:
  """Acc. O_PT while O_FT is trained, and while O_PT is trained again; a model has one colour in both."""
  curves = select(cells, metric="acc_pt")
  tuning, back = [], []
  for model, own in models_of(curves):
    tuned = select(_tuned(rows, task, model), metric="acc_pt")
    tuning.append(means(tuned, "step", label=model.label, style="-"))
    back.append(means(own, "step", label=model.label, style="-"))
  control = select(curves, stage="scratch_ft")
  back.append(means(control, "step", label="never had O_PT (Scr. + FT)", style="--", colour="#000000"))
  guess = {"guess O_PT": guesses(rows, task, 0)["guess O_PT"]}
  label = "Acc. O_PT at C_Te = 0, %"
  first, second = f"{where(task, None, cells)}: fine-tuned on O_FT", f"then on O_PT again, at {rate:g}"
  return [
    Panel(first, "step of fine-tuning on O_FT", label, tuning, guess, xscale="symlog"),
    Panel(second, "step of training on O_PT", label, back, {"threshold": threshold, **guess}, xscale="symlog"),
  ]


REPORT = Report(make, reads=("behaviour", "data"), limits={**PLAIN, **REVERSED})
