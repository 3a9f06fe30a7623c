"""Figures 10, 39-54: attention maps or hidden units of chosen strings, and what changed over the test set."""

import numpy as np

from experiments.reports import TASKS, Made, footer, present, rate_name
from finetune_wrappers.reporting.claims import Claim, markdown_claims
from finetune_wrappers.reporting.plots import Heatmap, heatmaps_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, markdown_table

_MODEL = ("stage", "learning_rate", "c_tr", "reft_learning_rate")
_DRAWN = {
  "attention": ("attention weight", (0.0, 1.0)),
  "hidden": ("unit, relative to the block's largest", (0.0, 1.0)),
}


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """One figure for each task and chosen string; tables of attention mass and of activation shift."""
  draw = facts["config"]["maps"]["draw"]
  figures = {}
  for number, (task, string) in enumerate(_strings(arrays)):
    name = "figure" if number == 0 else f"figure_{task}_{string}"
    figures[name] = _figure(arrays, task, string, draw, facts)
  claims = [claim for task in present(rows, "task") for claim in _claims(rows, task)]
  sections = [("Attention of the answer position, C_Te = 0", _mass_table(rows)), ("Hidden units", _shift_table(rows))]
  if claims and draw == "attention":
    sections.insert(0, ("Claims", markdown_claims(claims)))
  return Made(
    title="Attention maps" if draw == "attention" else "Activation maps",
    sections=sections,
    figures=figures,
    short=markdown_claims(claims) if draw == "attention" else _shift_table(rows),
  )


def _strings(arrays: dict) -> list[tuple[str, str]]:
  return list(dict.fromkeys((key.split("/")[0], key.split("/")[2]) for key in arrays))


def model_text(stage: str, rate: float | None, c_tr: float | None, reft_rate: float | None) -> str:
  """A model in a table: `fine-tuned η_M 0.01, C_Tr 1`."""
  if stage == "compile":
    return "compiled"
  text = f"fine-tuned {rate_name(rate or 0.0)}, C_Tr {c_tr:g}"
  return text if stage == "finetune" else f"{text}, then reFT {reft_rate:g}"


def _figure(arrays: dict, task: str, string: str, draw: str, facts: dict):
  pads = facts["config"][task]["task"]["num_pads"]
  letters = ["BOS", *string, *["pad"] * pads]
  grid = []
  for key, blocks in arrays.items():
    if key.startswith(f"{task}/") and key.endswith(f"/{string}/{draw}"):
      grid.append([_heatmap(key.split("/")[1], block, values, letters, draw) for block, values in enumerate(blocks)])
  label, limits = _DRAWN[draw]
  what = "attention, attending letter downwards" if draw == "attention" else "hidden units of the MLPs"
  return heatmaps_figure(
    grid, title=f"{TASKS[task]}, {string}: {what}", footer=footer(facts), colour_label=label, limits=limits
  )


def _heatmap(model: str, block: int, values, letters: list[str], draw: str) -> Heatmap:
  title = f"{model}\nblock {block}"
  if draw == "attention":
    return Heatmap(title, values, xlabels=letters, ylabels=letters, xlabel="attended", ylabel="attending")
  scale = np.abs(values).max() or 1.0
  return Heatmap(title, values / scale, ylabels=letters, xlabel=f"channel (largest {scale:.3g})", ylabel="position")


def _mass_table(rows: list[Row]) -> str:
  lines = []
  for (task, *model), own in group(select(rows, metric="attention_mass"), "task", *_MODEL).items():
    for block in present(own, "block"):
      cells = [cell_summary(select(own, block=block, attended=operand)) for operand in ("pt", "ft")]
      lines.append((TASKS[task], model_text(*model), block, *(_share(cell) for cell in cells)))
  text = (
    "Mean share of the answer position's attention, in percent: for Counter on all the a's (O_PT) and all the b's "
    "(O_FT), for Max-identifier on the letter that is the answer for O_PT and for O_FT.\n\n"
  )
  return text + markdown_table(("task", "model", "block", "on O_PT, %", "on O_FT, %"), lines)


def _share(cell) -> str:
  text = f"{100 * cell.mean:.1f}"
  return (
    text if np.isnan(cell.interval.low) else f"{text} [{100 * cell.interval.low:.1f}, {100 * cell.interval.high:.1f}]"
  )


def _shift_table(rows: list[Row]) -> str:
  lines = []
  for (task, *model), own in group(select(rows, metric="activation_shift"), "task", *_MODEL).items():
    if model[0] == "compile":
      continue
    for block in present(own, "block"):
      cell = cell_summary(select(own, block=block))
      interval = "" if np.isnan(cell.interval.low) else f" [{cell.interval.low:.3g}, {cell.interval.high:.3g}]"
      lines.append((TASKS[task], model_text(*model), block, f"{cell.mean:.3g}{interval}"))
  text = "Root-mean-square change of a block's hidden units over their root-mean-square in the compiled model.\n\n"
  return text + markdown_table(("task", "model", "block", "relative change"), lines)


def _claims(rows: list[Row], task: str) -> list[Claim]:
  """The paper's: the reading block still attends to O_PT's letter after C_Tr = 1; after C_Tr = 0 to O_FT's too."""
  block = 1 if task == "counter" else 2
  mass = select(rows, metric="attention_mass", task=task, block=block)
  claims = []
  for rate in sorted(present(select(mass, stage="finetune"), "learning_rate"), reverse=True):
    for c_tr, operand in ((1.0, "pt"), (0.0, "ft")):
      before = select(mass, stage="compile", attended=operand)
      after = select(mass, stage="finetune", learning_rate=rate, c_tr=c_tr, attended=operand)
      if before and after:
        claims.append(_claim(task, block, rate, c_tr, operand, cell_summary(before), cell_summary(after)))
  return claims


def _claim(task: str, block: int, rate: float, c_tr: float, operand: str, before, after) -> Claim:
  name = f"{TASKS[task]}, {rate_name(rate)}, C_Tr = {c_tr:g}: block {block}"
  evidence = f"{_share(before)} % compiled, {_share(after)} % fine-tuned"
  if operand == "pt":
    kept = after.mean / before.mean if before.mean else 0.0
    answer = "yes" if kept >= 0.8 else "partly" if kept >= 0.4 else "no"
    return Claim(f"{name} still attends to O_PT's letters (at least 80 % of the compiled share)", answer, evidence)
  grown = after.mean - before.mean
  answer = "yes" if grown >= 0.1 else "partly" if grown >= 0.03 else "no"
  return Claim(f"{name} comes to attend to O_FT's letters too (10 points more than compiled)", answer, evidence)
