"""Table 1: how many generated stories have the deleted feature, as reverse fine-tuning goes on."""

import numpy as np

from experiments.reports import REVERSED, Made, Report, footer, last_step, means, present
from experiments.reports.passages import median_text, not_to_judge, passages, ratio_text, sooner
from experiments.reports.stories import CONTROL, at_step, models_of, named
from finetune_wrappers.reporting import paper_values
from finetune_wrappers.reporting.claims import NOT_JUDGED, Finding, claim_of_models, judge, judge_below, markdown_claims
from finetune_wrappers.reporting.plots import Panel, lines_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import (
  cell_summary,
  format_accuracy,
  format_cell,
  format_points,
  markdown_table,
  paired_summary,
)
from finetune_wrappers.statistics import bootstrap_median_ratio

_EARLY = 30  # iterations after which the paper's Table 1 has its second column


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """The table, who judges the stories, and whether the feature is back sooner than the control learns it."""
  scores = select(rows, metric="generation_score", stage=("pretrain", "finetune", "reft", "scratch_ft"))
  threshold = facts["config"]["reft"]["threshold"] * _full(scores)
  claims = [_deleted(scores), _early(scores), _sooner(scores, threshold)]
  return Made(
    title=f"Stories that have the feature ({facts['config']['name']})",
    sections=[
      ("Generation score", _scores_text(scores, threshold) + _table(scores, threshold)),
      ("The paper's Table 1", _paper_table()),
      ("Who judges", _judges_text(rows) + _judges_table(rows)),
      ("The judges on what models told", _samples_table(rows)),
      ("What protocols did", _protocols_table(rows)),
      ("Malformed records of the files", _left_out_table(rows)),
      ("Samples", _samples(rows, arrays)),
    ],
    figures={"figure": _figure(scores, threshold, facts)},
    verdict=markdown_claims(claims),
  )


def _full(scores: list[Row]) -> float:
  """The score of models that were pretrained with the feature, mean over seeds."""
  return cell_summary(last_step(select(scores, stage="pretrain"))).mean


def _scores_text(scores: list[Row], threshold: float) -> str:
  base = last_step(select(scores, stage="pretrain"))
  return (
    "Share in percent of stories, generated from held-out instructions that ask for the feature, that the classifier "
    f"calls ones with it; by iterations of training on stories that all have it. Before any fine-tuning: "
    f"{format_cell(base)}. It counts as back at {100 * threshold:.1f} %, a share of that.\n\n"
  )


def _table(scores: list[Row], threshold: float) -> str:
  revived = models_of(scores, "reft") + models_of(scores, "scratch_ft")
  steps = sorted({row["step"] for _, own in revived for row in own})
  control = passages(select(scores, stage="scratch_ft"), threshold)
  lines = []
  for name, own in revived:
    times = passages(own, threshold)
    ratio = ""
    if own[0]["stage"] == "reft":
      ratio = ratio_text(bootstrap_median_ratio(numerator=control, denominator=times) if times and control else None)
    lines.append((name, *(format_cell(at_step(own, step)) for step in steps), median_text(own, threshold), ratio))
  header = ("model", *(f"{step}" for step in steps), "median iterations to the threshold", "the control's over it")
  return markdown_table(header, lines)


def _paper_table() -> str:
  lines = [(line["model"], *(f"{100 * value:.0f}" for value in line["scores"])) for line in paper_values.table1()]
  header = ("model", *map(str, paper_values.TABLE1_STEPS))
  text = "91M parameters, real stories, one run each, judged by a fine-tuned GPT-3.5 of 92 % held-out accuracy.\n\n"
  return text + markdown_table(header, lines)


def _judges_text(rows: list[Row]) -> str:
  guess = select(rows, metric="guess_baseline", stage="data")[0]["value"]
  return (
    "Accuracy in percent on held-out stories whose label is known, without their instructions. Always giving the "
    f"commoner label: {format_accuracy(guess)}. `rule` is the maker's own reading, for made stories only.\n\n"
  )


def _judges_table(rows: list[Row]) -> str:
  found = select(rows, metric="acc_judge")
  return markdown_table(("judge", "accuracy"), [(row["reads"], format_accuracy(row["value"])) for row in found])


def _samples_table(rows: list[Row]) -> str:
  told = select(rows, stage="samples")
  lines = []
  for kind in ("pretrain", "never", "finetune", "reft", "scratch_ft"):
    of_kind = select(told, model=kind)
    for own in group(of_kind, "protocol", "learning_rate", "reft_learning_rate").values():
      name = {"pretrain": "pretrained with it", "never": "pretrained without it"}.get(
        kind
      ) or f"{named(own[0])}, {kind}"
      readers = present(own, "reads")
      cells = [format_cell(select(own, metric="generation_score", reads=reads)) for reads in readers]
      lines.append((name, *cells, format_cell(select(own, metric="readable_share", reads=readers[-1]))))
  header = ("model, at its end", *(f"{name} says" for name in present(told, "reads")), "readable for the last")
  return markdown_table(header, lines)


def _protocols_table(rows: list[Row]) -> str:
  found = select(rows, metric="stories")
  done = list(dict.fromkeys(row["done"] for row in found))
  lines = []
  for protocol in dict.fromkeys(row["protocol"] for row in found):
    own = {row["done"]: row["value"] for row in select(found, protocol=protocol)}
    lines.append((protocol, *(f"{own[name]:.0f}" if name in own else "" for name in done)))
  return "Stories of the training split.\n\n" + markdown_table(("protocol", *done), lines)


def _left_out_table(rows: list[Row]) -> str:
  lines = [(row["scope"], f"{row['value']:.0f}", row["done"]) for row in select(rows, metric="left_out")]
  if not lines:
    return "None was left out.\n"
  return "They were left out.\n\n" + markdown_table(("split", "records", "why"), lines)


def _samples(rows: list[Row], arrays: dict) -> str:
  del rows
  found = [
    f"**{name.split('/')[0]}**\n\n"
    + "\n\n".join(f"> {' / '.join(str(text).split(chr(10)))}" for text in np.ravel(arrays[name])[:1])
    for name in sorted(arrays)
  ]
  return "\n\n".join(found) + "\n"


def _deleted(scores: list[Row]):
  base = last_step(select(scores, stage="pretrain"))
  findings = []
  for name, own in models_of(scores, "finetune"):
    change = paired_summary(last_step(own), base=base)
    text = f"{format_cell(base)} to {format_cell(last_step(own))} ({format_points(change)} points)"
    findings.append(Finding(name, judge_below(change, below=0.0), text))
  return claim_of_models("Deleting lowers the generation score", findings)


def _early(scores: list[Row]):
  control, findings = select(scores, stage="scratch_ft"), []
  steps = [step for step in present(control, "step") if 0 < step <= _EARLY]
  for name, own in models_of(scores, "reft"):
    if not steps:
      findings.append(Finding(name, NOT_JUDGED, f"no evaluation within {_EARLY} iterations"))
      continue
    at = steps[-1]
    more = paired_summary(at_step(own, at), base=at_step(control, at))
    text = f"at {at}: {format_cell(at_step(own, at))} against {format_cell(at_step(control, at))}"
    text += f" ({format_points(more)} points)"
    findings.append(Finding(name, judge(more, above=0.0), text))
  return claim_of_models(f"Within {_EARLY} iterations the score is higher than the control's", findings)


def _sooner(scores: list[Row], threshold: float):
  control, findings = select(scores, stage="scratch_ft"), []
  times, learned = passages(control, threshold), median_text(control, threshold)
  for name, own in models_of(scores, "reft"):
    reason = not_to_judge(own, threshold)
    if reason or not times:
      findings.append(Finding(name, NOT_JUDGED, reason or f"{CONTROL}: {learned}"))
      continue
    back = passages(own, threshold)
    ratio = bootstrap_median_ratio(numerator=times, denominator=back)
    text = f"{median_text(own, threshold)} iterations against {learned}, ratio {ratio_text(ratio)}"
    findings.append(sooner(name, ratio, min(len(times), len(back)), text))
  return claim_of_models(f"The score is back ({100 * threshold:.1f} %) sooner than the control learns it", findings)


def _figure(scores: list[Row], threshold: float, facts: dict):
  base = {"before fine-tuning": _full(scores), "threshold": threshold}
  series = [means(own, "step", label=name) for name, own in models_of(scores, "reft")]
  series.append(means(select(scores, stage="scratch_ft"), "step", label=CONTROL, style="s--", colour="#000000"))
  panel = Panel(
    "Told stories that have the feature", "reFT iteration", "generation score, %", series, base, xscale="symlog"
  )
  return lines_figure([panel], title="Reverse fine-tuning on stories with the feature", footer=footer(facts))


REPORT = Report(
  make, reads=("behaviour", "story_data", "story_samples"), needs=("finetune.protocols",), limits=REVERSED
)
