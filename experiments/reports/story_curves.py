"""Figures 31-34: losses and generation scores while the feature is deleted, and while it is revived."""

from experiments.reports import REVERSED, Made, Report, footer, last_step, means
from experiments.reports.stories import CONTROL, at_step, models_of, number_cell
from finetune_wrappers.reporting.claims import NOT_JUDGED, Claim, Finding, claim_of_models, judge, markdown_claims
from finetune_wrappers.reporting.plots import Panel, Series, lines_figure
from finetune_wrappers.reporting.rows import Row, select
from finetune_wrappers.reporting.tables import CellSummary, markdown_table, paired_summary

_METRICS = {
  "loss_feature": "loss on stories with it, nats a token",
  "loss_other": "loss on other stories, nats a token",
  "generation_score": "generation score, %",
}


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Curves of both stages, and whether the loss is below the control's all along."""
  del arrays
  text = "Means over held-out stories, in nats a token, instructions included.\n\n"
  return Made(
    title=f"Losses and scores of stories ({facts['config']['name']})",
    sections=[
      ("Deleting", text + _table(rows, ("finetune",))),
      ("Reviving", text + _table(rows, ("reft", "scratch_ft"))),
    ],
    figures={"figure": figure(rows, facts, ("finetune", "reft"), ("loss_feature", "loss_other", "generation_score"))},
    verdict=markdown_claims([raised_claim(rows), below_claim(rows)]),
  )


def raised_claim(rows: list[Row]) -> Claim:
  """Does deleting raise the loss on stories with the feature?"""
  findings = []
  for name, own in models_of(select(rows, metric="loss_feature"), "finetune"):
    first, last = at_step(own, 0), last_step(own)
    change = paired_summary(last, base=first)
    findings.append(
      Finding(name, judge(change, above=0.0), f"{number_cell(first)} to {number_cell(last)} ({_change(change)})")
    )
  return claim_of_models("Deleting raises the loss on stories with the feature", findings)


def below_claim(rows: list[Row]) -> Claim:
  """Is the loss in reverse fine-tuning below the control's, from the first evaluation to the last?"""
  losses = select(rows, metric="loss_feature")
  control, findings = select(losses, stage="scratch_ft"), []
  for name, own in models_of(losses, "reft"):
    steps = sorted({row["step"] for row in own if row["step"] > 0})
    if not control or not steps:
      findings.append(Finding(name, NOT_JUDGED, "no control"))
      continue
    less = [paired_summary(at_step(control, step), base=at_step(own, step)) for step in steps]
    answers = [judge(change, above=0.0) for change in less]
    answer = "yes" if set(answers) == {"yes"} else "no" if set(answers) == {"no"} else "partly"
    text = f"the control's minus its own: {_change(less[0])} at {steps[0]}, {_change(less[-1])} at {steps[-1]}"
    findings.append(Finding(name, answer, text))
  return claim_of_models("Reviving: the loss on stories with the feature is below the control's all along", findings)


def figure(rows: list[Row], facts: dict, stages: tuple[str, ...], metrics: tuple[str, ...]):
  """A panel for each metric and kind of training."""
  panels = []
  for stage in stages:
    for metric in metrics:
      own = select(rows, metric=metric)
      found = models_of([row for row in own if row.get("reads") is None], stage)
      series: list[Series] = [means(cells, "step", label=name) for name, cells in found]
      if stage == "reft":
        control = select(own, stage="scratch_ft")
        series.append(means(control, "step", label=CONTROL, style="s--", colour="#000000"))
      title = {"finetune": "deleting", "reft": "reviving"}[stage]
      share = metric == "generation_score"
      panels.append(Panel(title, "iteration", _METRICS[metric], series, percent=share, xscale="symlog"))
  return lines_figure(
    panels, title="A feature of stories, deleted and revived", footer=footer(facts), columns=len(metrics)
  )


def _table(rows: list[Row], stages: tuple[str, ...]) -> str:
  lines = []
  for metric in ("loss_feature", "loss_other"):
    for stage in stages:
      for name, own in models_of(select(rows, metric=metric), stage):
        steps = sorted({row["step"] for row in own})
        cells = [number_cell(at_step(own, step)) for step in (steps[0], steps[len(steps) // 2], steps[-1])]
        lines.append((metric, name, *cells))
  return markdown_table(("metric", "model", "first", "half of the evaluations on", "last"), lines)


def _change(change: CellSummary) -> str:
  low, high = change.interval
  return f"{change.mean:+.3f} [{low:+.3f}, {high:+.3f}]"


REPORT = Report(make, reads=("behaviour",), needs=("finetune.protocols",), limits=REVERSED)
