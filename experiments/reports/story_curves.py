"""Figures 31-34: losses and generation scores while the feature is deleted, and while it is revived."""

import math

from experiments.reports import REVERSED, Made, Report, footer, last_step, means
from experiments.reports.stories import at_step, control_series, models_of, number_cell, number_text, with_controls
from experiments.reports.story_table import deleted_claim, judges_section
from finetune_wrappers.reporting.claims import NOT_JUDGED, Claim, Finding, claim_of_models, judge, markdown_claims
from finetune_wrappers.reporting.plots import Panel, lines_figure
from finetune_wrappers.reporting.rows import Row, select
from finetune_wrappers.reporting.tables import format_cell, markdown_table, paired_summary

# What each metric is of, and its axis.
_METRICS = {
  "loss_feature": ("stories with {feature}", "loss, nats a token"),
  "loss_other": ("stories without {feature}", "loss, nats a token"),
  "generation_score": ("told stories", "generation score, %"),
}
_TITLES = {"finetune": "deleting", "reft": "reviving"}


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Curves of both stages, and whether the loss is below the control's all along."""
  del arrays
  scores = select(rows, metric="generation_score", stage=("pretrain", "finetune"))
  lowered = [deleted_claim(scores)] if scores else []
  text = (
    "Losses are means over the tokens of held-out stories, in nats a token, instructions included. The generation "
    "score is the share, in percent, of stories told when asked for the feature that the classifier calls ones with "
    "it.\n\n"
  )
  return Made(
    title=f"Losses and scores of stories ({facts['config']['name']})",
    sections=[
      ("Deleting", text + _table(rows, facts, ("finetune",))),
      ("Reviving", text + _table(rows, facts, ("reft", "scratch_ft"))),
      *([judges_section(rows)] if select(rows, metric="acc_judge") else []),
    ],
    figures={"figure": figure(rows, facts, ("finetune", "reft"), tuple(_METRICS))},
    verdict=markdown_claims([raised_claim(rows), *lowered, below_claim(rows)]),
  )


def raised_claim(rows: list[Row]) -> Claim:
  """Does deleting raise the loss on stories with the feature?"""
  findings = []
  for name, own in models_of(select(rows, metric="loss_feature"), "finetune"):
    first, last = at_step(own, 0), last_step(own)
    change = paired_summary(last, base=first)
    text = f"{number_cell(first)} to {number_cell(last)} ({number_text(change, '+.3f')})"
    findings.append(Finding(name, judge(change, above=0.0), text))
  return claim_of_models("Deleting raises the loss on stories with the feature", findings)


def below_claim(rows: list[Row]) -> Claim:
  """Is the loss in reverse fine-tuning below the control's at every evaluation after the start?"""
  findings = []
  for name, own, control in with_controls(select(rows, metric="loss_feature")):
    steps = sorted({row["step"] for row in own if row["step"] > 0})
    if not steps:
      findings.append(Finding(name, NOT_JUDGED, "no evaluation after the start"))
      continue
    less = {step: paired_summary(at_step(control, step), base=at_step(own, step)) for step in steps}
    answers = {judge(change, above=0.0) for change in less.values()}
    # Where all runs diverged on the way, nothing holds all along.
    answer = answers.pop() if len(answers) == 1 else "no" if answers == {"no", NOT_JUDGED} else "partly"
    least = min(steps, key=lambda step: math.inf if math.isnan(less[step].mean) else less[step].mean)
    shown = dict.fromkeys((steps[0], least, steps[-1]))
    text = ", ".join(f"{number_text(less[step], '+.3f')} at {step}" for step in shown)
    findings.append(Finding(name, answer, f"the control's minus its own, first, least and last: {text}"))
  return claim_of_models("Reviving: the loss on stories with the feature is below the control's all along", findings)


def figure(rows: list[Row], facts: dict, stages: tuple[str, ...], metrics: tuple[str, ...]):
  """A panel for each metric that was measured and kind of training."""
  panels, feature = [], facts["config"]["stories"]["feature"]
  rows = [row for row in rows if row.get("reads") is None]
  metrics = tuple(metric for metric in metrics if select(rows, metric=metric))
  for stage in stages:
    for metric in metrics:
      own = select(rows, metric=metric)
      series = [means(cells, "step", label=name) for name, cells in models_of(own, stage)]
      series += control_series(own) if stage == "reft" else []
      about, axis = _METRICS[metric]
      title = f"{_TITLES[stage]}: {about.format(feature=feature)}"
      panels.append(Panel(title, "iteration", axis, series, percent=metric == "generation_score", xscale="symlog"))
  titles = " and ".join({"finetune": "deleted", "reft": "revived"}[stage] for stage in stages)
  return lines_figure(panels, title=f"{feature} {titles}", footer=footer(facts), columns=len(metrics))


def _table(rows: list[Row], facts: dict, stages: tuple[str, ...]) -> str:
  rows, lines = select([row for row in rows if row.get("reads") is None], stage=stages), []
  steps = sorted({row["step"] for row in rows if row["metric"] in _METRICS})
  shown = dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1]))
  for metric, (about, axis) in _METRICS.items():
    cell = format_cell if metric == "generation_score" else number_cell
    what = f"{axis.split(',')[0]}, {about.format(feature=facts['config']['stories']['feature'])}"
    for stage in stages:
      for name, own in models_of(select(rows, metric=metric), stage):
        lines.append((what, name, *(cell(at_step(own, step)) for step in shown)))
  return markdown_table(("what", "model", *(f"iteration {step}" for step in shown)), lines)


REPORT = Report(make, reads=("behaviour", "story_data"), needs=("finetune.protocols",), limits=REVERSED)
