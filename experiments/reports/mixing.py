"""Figures 18-23: fine-tuning with pretraining samples mixed in: behaviour, and what probes read (App. E.1)."""

from experiments.reports import PLAIN, Made, Report, joined, last_step, mean_of, pcfg_behaviour, probes
from experiments.reports.names import named
from finetune_wrappers.reporting.claims import NOT_JUDGED, Finding, claim_of_models, judge, markdown_claims
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, format_cell, format_points, paired_summary

_MODEL = ("task", "pretraining_steps", "learning_rate", "prior", "c_tr")


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """The reports of behaviour and of the probes, opened by what mixing does to O_PT."""
  behaviour = pcfg_behaviour.make(rows, arrays, facts)
  asked = select(rows, metric="acc_pt", c_te=0)
  claims = _claims(last_step(select(asked, stage="finetune", target="ft")), select(asked, stage="pretrain"))
  text = (
    "Questions that the paper's App. E.1 raises, in our words: does O_PT stay where pretraining samples are mixed into "
    "the fine-tuning?\n\n"
  )
  behaviour.verdict = f"{text}{markdown_claims(claims)}\n{behaviour.verdict}"
  return joined(behaviour, probes.make(rows, arrays, facts), "probes") if select(rows, stage="probe") else behaviour


def _claims(final: list[Row], pretrained: list[Row]) -> list:
  kept, more = [], []
  for (task, steps, _, prior, _), own in group(final, *_MODEL).items():
    plain = select(own, mix=0.0)
    before = select(pretrained, task=task, pretraining_steps=steps, prior=prior)
    for (mix,), cells in sorted(group(own, "mix").items()):
      if not mix:
        continue
      name, had = named(cells[0], *_MODEL, "mix"), mean_of(before) > 0.9
      answer = judge(cell_summary(cells), above=0.9) if had else NOT_JUDGED
      kept.append(Finding(name, answer, f"{format_cell(before)} to {format_cell(cells)}"))
      if plain:
        gain = paired_summary(cells, base=plain)
        more.append(Finding(name, judge(gain, above=0.1) if had else NOT_JUDGED, f"{format_points(gain)} points"))
  found = {
    "O_PT stays (Acc. O_PT above 90 % at C_Te = 0)": kept,
    "More of O_PT stays than without (10 points or more)": more,
  }
  return [claim_of_models(text, findings) for text, findings in found.items() if findings]


REPORT = Report(make, reads=("behaviour", "data"), needs=("finetune.mixes",), limits=PLAIN)
