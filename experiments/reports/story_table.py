"""Table 1: how many generated stories have the deleted feature, as reverse fine-tuning goes on."""

import math
import textwrap

import numpy as np

from experiments.reports import REVERSED, Made, Report, footer, last_step, means, present
from experiments.reports.passages import counted, median_text, not_to_judge, passages, ratio_text, sooner
from experiments.reports.stories import (
  CONTROL,
  PROTOCOLS,
  REVIVED,
  at_step,
  control_series,
  models_of,
  named,
  with_controls,
)
from finetune_wrappers.reporting import paper_values
from finetune_wrappers.reporting.claims import (
  NOT_JUDGED,
  Claim,
  Finding,
  claim_of_models,
  judge,
  judge_below,
  markdown_claims,
)
from finetune_wrappers.reporting.plots import Panel, lines_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import (
  MISSING,
  cell_summary,
  format_accuracy,
  format_cell,
  format_points,
  markdown_table,
  paired_summary,
)
from finetune_wrappers.rules import Rule
from finetune_wrappers.statistics import bootstrap_median_ratio

_PAPERS_JUDGE = 0.92
_EARLY = 30  # iterations after which the paper's Table 1 has its second column
_SCORE = "generation score"
_KINDS = {
  "pretrain": "pretrained with it",
  "never": "pretrained without it",
  "finetune": "after deletion",
  "reft": "revived",
  "scratch_ft": "trained on it",
}
_SAMPLES_TEXT = (
  "What each judge says of the stories that models tell at the end of their training, in percent of the stories that "
  f"it can read; `{MISSING}` where it can read none, and seeds of which it can read none are left out. Classifier and "
  "bag of words read everything, the rule only stories of the maker's plot.\n\n"
)


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """The table, who judges the stories, and whether the feature is back sooner than the control learns it."""
  scores = select(rows, metric="generation_score", stage=("pretrain", "finetune", "reft", "scratch_ft"))
  threshold = _threshold(scores, facts["config"]["reft"]["threshold"])
  claims = [_judged(rows), deleted_claim(scores), _early(scores, threshold), _sooner(scores, threshold)]
  return Made(
    title=f"Stories that have the feature ({facts['config']['name']})",
    sections=[
      ("Generation score", _scores_text(scores, threshold, facts) + _table(scores, threshold)),
      ("The paper's Table 1", _paper_table()),
      judges_section(rows),
      ("The judges on what models told", _SAMPLES_TEXT + _samples_table(rows)),
      ("What protocols did", _protocols_table(rows)),
      ("Malformed records of the files", _left_out_table(rows)),
      ("Samples", _samples(arrays)),
    ],
    figures={"figure": _figure(scores, threshold, facts)},
    verdict=markdown_claims(claims),
  )


def _threshold(scores: list[Row], share: float) -> float:
  """That share of the way from models that never had the feature to those pretrained with it; 0 if there is none."""
  never, full = select(scores, stage="scratch_ft", step=0), _full(scores)
  rates = group(never, "reft_learning_rate").values()  # the same models before their first step
  low = cell_summary(next(iter(rates))).mean if never else 0.0
  low = 0.0 if math.isnan(low) else low
  return 0.0 if full <= low else low + share * (full - low)


def _judged(rows: list[Row]) -> Claim:
  own = select(rows, metric="acc_judge", reads="classifier")
  right = own[0]["value"]
  text = f"{format_accuracy(right)} % of held-out stories, the commoner label {format_accuracy(_guess(rows))} %"
  return Claim("The classifier is as good as the paper's judge (92 %)", "yes" if right >= _PAPERS_JUDGE else "no", text)


def _guess(rows: list[Row]) -> float:
  return select(rows, metric="guess_baseline", stage="data")[0]["value"]


def _full(scores: list[Row]) -> float:
  """The score of models that were pretrained with the feature, mean over seeds."""
  return cell_summary(last_step(select(scores, stage="pretrain"))).mean


def _scores_text(scores: list[Row], threshold: float, facts: dict) -> str:
  base = last_step(select(scores, stage="pretrain"))
  share = facts["config"]["reft"]["threshold"]
  back = (
    f"The feature counts as back at a score of {100 * threshold:.1f}, {100 * share:g} % of the way from the control's "
    "mean before its first iteration to theirs: the threshold."
    if threshold > 0
    else f"{_nothing(threshold).capitalize()}, so there is no threshold."
  )
  return (
    "Share in percent of stories, generated from held-out instructions that ask for the feature, that the classifier "
    "calls ones with it; by iterations of training on stories that all have it. Models pretrained with the feature, "
    f"before any fine-tuning: {format_cell(base)}. {back}\n\n"
    f"`{CONTROL}` is the control. The ratio is its median over the model's: above 1, the model is there sooner. `>`, "
    "`at least` and `at most` stand where half of the runs never get there. A model that is at the threshold before "
    "the first iteration has nothing to revive, and such seeds count in neither column.\n\n"
  )


def _table(scores: list[Row], threshold: float) -> str:
  revived = with_controls(scores)
  steps = sorted({row["step"] for row in select(scores, stage=REVIVED)})
  lines = []
  for name, own, control in [*revived, *((name, own, []) for name, own in models_of(scores, "scratch_ft"))]:
    median = ratio = MISSING
    if threshold > 0:
      times, learned = passages(own, threshold), passages(control, threshold)
      ratio = ratio_text(bootstrap_median_ratio(numerator=learned, denominator=times) if times and learned else None)
      median = median_text(own, threshold)
    lines.append((name, *(format_cell(at_step(own, step)) for step in steps), median, ratio))
  header = ("model", *(f"at {step}" for step in steps), "median iterations to the threshold", "ratio to the control's")
  return markdown_table(header, lines)


def _nothing(threshold: float) -> str:
  """Why there is no threshold; empty if there is one."""
  if math.isnan(threshold):
    return "every model pretrained with the feature diverged"
  return "" if threshold > 0 else "models pretrained with the feature tell no more stories with it than the control"


def _paper_table() -> str:
  lines = [(line["model"], *(f"{100 * value:.0f}" for value in line["scores"])) for line in paper_values.table1()]
  header = ("model", *map(str, paper_values.TABLE1_STEPS))
  text = "91M parameters, real stories, one run each, judged by a fine-tuned GPT-3.5 of 92 % held-out accuracy.\n\n"
  return text + markdown_table(header, lines)


def judges_section(rows: list[Row]) -> tuple[str, str]:
  """How right each judge is, and what it says of held-out stories with the feature and without."""
  text = (
    "Accuracy in percent on held-out stories whose label is known, without their instructions. Always giving the "
    f"commoner label: {format_accuracy(_guess(rows))}. `rule` is the maker's own reading, for made stories only. What "
    "a judge calls stories that have the feature is the score of a model that tells as the data do; what it calls "
    "others, that of one that never tells it.\n\n"
  )
  found, lines = select(rows, metric=("acc_judge", "called_share")), []
  for (reads,), own in group(found, "reads").items():
    cells = [select(own, metric="acc_judge"), *(select(own, label=label) for label in ("with", "without"))]
    lines.append((reads, *(format_cell(cell) for cell in cells)))
  header = ("judge", "accuracy", "calls stories that have it", "calls others")
  return "Who judges", text + markdown_table(header, lines)


def _samples_table(rows: list[Row]) -> str:
  told, lines = select(rows, stage="samples"), []
  readers = list(dict.fromkeys(row["reads"] for row in told))
  choosy = [reads for reads in readers if reads == "rule"]
  for kind, what in _KINDS.items():
    for own in group(select(told, model=kind), "protocol", "learning_rate", "reft_learning_rate").values():
      rate = f", reFT {own[0]['reft_learning_rate']:g}" if kind in REVIVED else ""
      name = what if kind in ("pretrain", "never") else f"{named(own[0])}, {what}{rate}"
      cells = [format_cell(select(own, metric="generation_score", reads=reads)) for reads in readers]
      cells += [format_cell(select(own, metric="readable_share", reads=reads)) for reads in choosy]
      lines.append((name, *cells))
  header = ("model", *(f"{reads} says" for reads in readers), *(f"{reads} can read" for reads in choosy))
  return markdown_table(header, lines)


def _protocols_table(rows: list[Row]) -> str:
  found = select(rows, metric="stories")
  done = list(dict.fromkeys(row["done"] for row in found))
  lines = []
  for protocol in dict.fromkeys(row["protocol"] for row in found):
    own = {row["done"]: row["value"] for row in select(found, protocol=protocol)}
    lines.append((f"{PROTOCOLS[protocol]} (`{protocol}`)", *(f"{own.get(name, 0):.0f}" for name in done)))
  text = (
    "Stories of the training split by what was done to them, each in one column: `kept` as they are, `dropped`, or "
    "with a changed instruction.\n\n"
  )
  return text + markdown_table(("protocol", *done), lines)


def _left_out_table(rows: list[Row]) -> str:
  lines = [(row["scope"], f"{row['value']:.0f}", row["done"]) for row in select(rows, metric="left_out")]
  if not lines:
    return "None was left out.\n"
  return "They were left out.\n\n" + markdown_table(("split", "records", "why"), lines)


def _samples(arrays: dict) -> str:
  """The first of each model, as code, in which no character of a story is Markdown."""
  found = ["One story of each model of the first seed, unless it diverged: the held-out instruction, then the story."]
  for kind, what in _KINDS.items():
    for name in sorted(name for name in arrays if name.split(" ")[0] == kind):
      lines = str(np.ravel(arrays[name])[0]).split("\n")
      wrapped = [part for line in lines for part in textwrap.wrap(line.strip(), 100, break_on_hyphens=False)]
      swept = "" if kind in ("pretrain", "never") else f" ({name.removeprefix(kind).strip()})"
      found += [f"**{what}**{swept}", "\n".join(f"    {line}" for line in wrapped)]
  return "\n\n".join(found) + "\n"


def deleted_claim(scores: list[Row]) -> Claim:
  """Does deleting lower the score?"""
  base = last_step(select(scores, stage="pretrain"))
  findings = []
  for name, own in models_of(scores, "finetune"):
    if cell_summary(base).mean == 0:
      findings.append(Finding(name, NOT_JUDGED, "models pretrained with the feature tell no story with it"))
      continue
    change = paired_summary(last_step(own), base=base)
    text = f"{format_cell(base)} to {format_cell(last_step(own))} ({format_points(change)} points)"
    findings.append(Finding(name, judge_below(change, below=0.0), text))
  return claim_of_models("Deleting lowers the generation score", findings)


def _early(scores: list[Row], threshold: float) -> Claim:
  findings = []
  for name, own, control in with_controls(scores):
    steps = [step for step in present(own, "step") if 0 < step <= _EARLY]
    reason = _nothing(threshold) or not_to_judge(own, threshold, measured=_SCORE)
    reason = reason or ("" if steps else f"no evaluation within {_EARLY} iterations")
    if reason:
      findings.append(Finding(name, NOT_JUDGED, reason))
      continue
    at, own = steps[-1], counted(own, threshold)
    control = select(control, seed=present(own, "seed"))
    more = paired_summary(at_step(own, at), base=at_step(control, at))
    starts, ends = ([format_cell(at_step(rows, step)) for rows in (own, control)] for step in (0, at))
    text = f"{ends[0]} against {ends[1]} at {at} ({format_points(more)} points), from {starts[0]} against {starts[1]}"
    findings.append(Finding(name, judge(more, above=0.0), text))
  return claim_of_models(f"Within {_EARLY} iterations the score is higher than the control's", findings)


def _sooner(scores: list[Row], threshold: float) -> Claim:
  findings = []
  for name, own, control in with_controls(scores):
    reason = _nothing(threshold) or not_to_judge(own, threshold, measured=_SCORE)
    if reason:
      findings.append(Finding(name, NOT_JUDGED, reason))
      continue
    times, learned = passages(control, threshold), median_text(control, threshold)
    if not times:
      findings.append(Finding(name, NOT_JUDGED, f"{CONTROL}: {learned}"))
      continue
    back = passages(own, threshold)
    ratio = bootstrap_median_ratio(numerator=times, denominator=back)
    text = f"{median_text(own, threshold)} iterations against {learned}, ratio {ratio_text(ratio)}"
    findings.append(sooner(name, ratio, min(len(times), len(back)), text))
  level = f" ({100 * threshold:.1f} %)" if threshold > 0 else ""
  return claim_of_models(f"The score is back{level} sooner than the control learns it", findings)


def _figure(scores: list[Row], threshold: float, facts: dict):
  base = {"before fine-tuning": _full(scores), "threshold": threshold} if threshold > 0 else {}
  series = [means(own, "step", label=name) for name, own in models_of(scores, "reft")] + control_series(scores)
  feature = facts["config"]["stories"]["feature"]
  panel = Panel(
    f"Told stories that have {feature}", "reFT iteration", "generation score, %", series, base, xscale="symlog"
  )
  return lines_figure([panel], title=f"Reverse fine-tuning on stories with {feature}", footer=footer(facts))


REPORT = Report(
  make,
  reads=("behaviour", "story_data", "story_samples"),
  needs=("finetune.protocols",),
  limits={**REVERSED, "scores.prompts": Rule("1 or more", bool)},
)
