"""Figures 10, 39-54: attention maps or hidden units of chosen strings, and what changed over the test set."""

import numpy as np

from experiments.reports import PLAIN, Made, Report, bar_series, footer, mean_of, present
from experiments.reports.names import named, short_name, task_name
from finetune_wrappers.reporting.claims import NOT_JUDGED, Claim, judge, markdown_claims, weakest
from finetune_wrappers.reporting.plots import Heatmap, Panel, bars_figure, heatmaps_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, format_accuracy, format_cell, markdown_table

_MODEL = ("stage", "learning_rate", "c_tr", "reft_learning_rate")
_DRAWN = {
  "attention": ("attention weight", (0.0, 1.0)),
  "hidden": ("unit, relative to the block's largest", (0.0, 1.0)),
}


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """One figure for each task and chosen string; shares of attention beside uniform attention's; activation shifts."""
  draw = facts["config"]["maps"]["draw"]
  figures = {}
  for number, (task, string) in enumerate(_strings(arrays)):
    name = "figure" if number == 0 else f"figure_{task}_{string}"
    figures[name] = _figure(arrays, task, string, draw, facts)
  if draw == "attention":
    figures["figure_shares"] = _share_figure(rows, facts)
  claims = [claim for task in present(rows, "task") for claim in _claims(rows, task)]
  sections = [("Attention of the answer position, C_Te = 0", _mass_table(rows)), ("Hidden units", _shift_table(rows))]
  return Made(
    title="Attention maps" if draw == "attention" else "Activation maps",
    sections=sections,
    figures=figures,
    verdict=markdown_claims(claims) if claims and draw == "attention" else "",
    table="" if draw == "attention" else _shift_table(rows),
  )


def _strings(arrays: dict) -> list[tuple[str, str]]:
  return list(dict.fromkeys((key.split("/")[0], key.split("/")[2]) for key in arrays))


def _model(row: Row) -> str:
  """A model in a table: `fine-tuned η_M 0.01, C_Tr 1`."""
  tuned = named(row, "learning_rate", "c_tr", "reft_learning_rate")
  return f"fine-tuned {tuned}" if tuned else "compiled"


def _figure(arrays: dict, task: str, string: str, draw: str, facts: dict):
  pads = facts["config"][task]["task"]["num_pads"]
  letters = ["BOS", *string, *["pad"] * pads]
  grid = []
  for key, blocks in arrays.items():
    if key.startswith(f"{task}/") and key.endswith(f"/{string}/{draw}"):
      grid.append([_heatmap(key.split("/")[1], block, values, letters, draw) for block, values in enumerate(blocks)])
  label, limits = _DRAWN[draw]
  if draw == "attention":
    label += f" (uniform: {1 / len(letters):.3f})"
  what = "attention, attending letter downwards" if draw == "attention" else "hidden units of the MLPs"
  title = f"{task_name(task)}, {string}: {what}, seed {facts['config']['seeds'][0]}"
  return heatmaps_figure(grid, title=title, footer=footer(facts, intervals=False), colour_label=label, limits=limits)


def _heatmap(model: str, block: int, values, letters: list[str], draw: str) -> Heatmap:
  title = f"{model}\nblock {block}"
  if draw == "attention":
    return Heatmap(title, values, xlabels=letters, ylabels=letters, xlabel="attended", ylabel="attending")
  largest = np.abs(values).max()
  shares = values / (largest or 1.0)
  return Heatmap(title, shares, ylabels=letters, xlabel=f"channel (largest {largest:.3g})", ylabel="position")


def _uniform(rows: list[Row], task: str, operand: str) -> float:
  """The share of an operand's letters if attention were spread evenly over the string."""
  return mean_of(select(rows, metric="attention_uniform", task=task, attended=operand))


def _share_figure(rows: list[Row], facts: dict):
  """Shares of the answer position's attention by model, with uniform attention's as lines."""
  panels = []
  mass = select(rows, metric="attention_mass")
  for task, block in sorted(group(mass, "task", "block")):
    models = group(select(mass, task=task, block=block), *_MODEL)
    series = [
      bar_series(f"on O_{operand.upper()}", [select(own, attended=operand) for own in models.values()])
      for operand in ("pt", "ft")
    ]
    uniform = {f"uniform, O_{operand.upper()}": _uniform(rows, task, operand) for operand in ("pt", "ft")}
    names = [short_name(own[0]).replace(",", "") for own in models.values()]
    title = f"{task_name(task)}, block {block}"
    panels.append(Panel(title, "", "share of attention, %", series, uniform, categories=names))
  return bars_figure(panels, title="Attention of the answer position, C_Te = 0", footer=footer(facts), columns=3)


def _mass_table(rows: list[Row]) -> str:
  lines = []
  for (task, *_), own in group(select(rows, metric="attention_mass"), "task", *_MODEL).items():
    for block in present(own, "block"):
      cells = [format_cell(select(own, block=block, attended=operand)) for operand in ("pt", "ft")]
      lines.append((task_name(task), _model(own[0]), block, *cells))
  for task in present(select(rows, metric="attention_uniform"), "task"):
    shares = [format_accuracy(_uniform(rows, task, operand)) for operand in ("pt", "ft")]
    lines.append((task_name(task), "uniform attention", "any", *shares))
  text = (
    "Mean share of the answer position's attention, in percent: for Counter on all the a's (O_PT) and all the b's "
    "(O_FT), for Max-identifier on the letter that is the answer for O_PT and for O_FT. Uniform attention is spread "
    "evenly over BOS, letters and pads.\n\n"
  )
  return text + markdown_table(("task", "model", "block", "on O_PT, %", "on O_FT, %"), lines)


def _shift_table(rows: list[Row]) -> str:
  lines = []
  for (task, stage, *_), own in group(select(rows, metric="activation_shift"), "task", *_MODEL).items():
    if stage == "compile":
      continue
    for block in present(own, "block"):
      cell = cell_summary(select(own, block=block))
      text = "" if np.isnan(cell.mean) else f"{cell.mean:.3g}"
      text += "" if np.isnan(cell.interval.low) else f" [{cell.interval.low:.3g}, {cell.interval.high:.3g}]"
      text += f" diverged ({cell.n_diverged} of {cell.n})" if cell.n_diverged else ""
      lines.append((task_name(task), _model(own[0]), block, text))
  text = "Root-mean-square change of a block's hidden units over their root-mean-square in the compiled model.\n\n"
  return text + markdown_table(("task", "model", "block", "relative change"), lines)


def _claims(rows: list[Row], task: str) -> list[Claim]:
  """The paper's: the reading block still attends to O_PT's letter after C_Tr = 1; after C_Tr = 0 to O_FT's too."""
  mass = select(rows, metric="attention_mass", task=task)
  compiled = select(mass, stage="compile", attended="pt")
  block = max(present(compiled, "block"), key=lambda block: mean_of(select(compiled, block=block)), default=0)
  mass = select(mass, block=block)
  claims = []
  for rate in sorted(present(select(mass, stage="finetune"), "learning_rate"), reverse=True):
    for c_tr, operand in ((1.0, "pt"), (0.0, "ft")):
      before = select(mass, stage="compile", attended=operand)
      after = select(mass, stage="finetune", learning_rate=rate, c_tr=c_tr, attended=operand)
      if before and after:
        name = f"{named(after[0], 'task', 'learning_rate')}, C_Tr = {c_tr:g}: block {block}"
        claims.append(_claim(name, operand, before, after, _uniform(rows, task, operand)))
  return claims


def _claim(name: str, operand: str, before: list[Row], after: list[Row], uniform: float) -> Claim:
  """Judged by the interval over seeds; a share that uniform attention would give too shows nothing."""
  compiled, found = mean_of(before), cell_summary(after)
  evidence = f"{format_cell(before)} % compiled, {format_cell(after)} fine-tuned, uniform {format_accuracy(uniform)}"
  more_than_uniform = judge(found, above=uniform)
  if operand == "ft":
    grown = judge(found, above=compiled + 0.1, partly_above=compiled + 0.03)
    text = "comes to attend to O_FT's letters too (over 10 points more than compiled, and more than uniform)"
    return Claim(f"{name} {text}", weakest(grown, more_than_uniform), evidence)
  text = f"{name} still attends to O_PT's letters (over 80 % of the compiled share, and more than uniform)"
  if compiled <= uniform:
    return Claim(text, NOT_JUDGED, f"{evidence}: the compiled model does not attend to them more than uniform either")
  kept = judge(found, above=0.8 * compiled, partly_above=0.4 * compiled)
  return Claim(text, weakest(kept, more_than_uniform), evidence)


REPORT = Report(make, reads=("maps",), limits=PLAIN)
