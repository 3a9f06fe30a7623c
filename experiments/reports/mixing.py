"""Figures 18-23: fine-tuning with pretraining samples mixed in: behaviour, and what probes read (App. E.1)."""

from experiments.reports import TASKS, Made, joined, last_step, pcfg_behaviour, probes, rate_name
from finetune_wrappers.reporting.claims import Finding, claim_of_models, judge, markdown_claims
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, format_cell, format_points, paired_summary

_MODEL = ("task", "pretraining_steps", "learning_rate", "prior", "c_tr")


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """The reports of behaviour and of the probes, opened by what mixing does to O_PT."""
  behaviour = pcfg_behaviour.make(rows, arrays, facts)
  claims = _claims(last_step(select(rows, stage="finetune", metric="acc_pt", c_te=0, target="ft")))
  text = (
    "Questions that the paper's App. E.1 raises, in our words: does O_PT stay where pretraining samples are mixed into "
    "the fine-tuning?\n\n"
  )
  behaviour.sections.insert(0, ("Mixing", text + markdown_claims(claims)))
  behaviour.short = f"{markdown_claims(claims)}\n{behaviour.short}"
  return joined(behaviour, probes.make(rows, arrays, facts), "probes") if select(rows, stage="probe") else behaviour


def _claims(final: list[Row]) -> list:
  kept, more = [], []
  for (task, steps, rate, prior, c_tr), own in group(final, *_MODEL).items():
    name = f"{TASKS[task]}, n_iters {steps}, {rate_name(rate, 'pcfg')}, {prior} prior, C_Tr {c_tr:g}"
    plain = select(own, mix=0.0)
    for (mix,), cells in sorted(group(own, "mix").items()):
      if not mix:
        continue
      mixed = name + pcfg_behaviour.mix_name(mix)
      kept.append(Finding(mixed, judge(cell_summary(cells), above=0.9), format_cell(cells)))
      if plain:
        gain = paired_summary(cells, plain)
        more.append(Finding(mixed, judge(gain, above=0.1), f"{format_points(gain)} points"))
  found = {
    "O_PT stays (Acc. O_PT above 90 % at C_Te = 0)": kept,
    "More of O_PT stays than without (10 points or more)": more,
  }
  return [claim_of_models(text, findings) for text, findings in found.items() if findings]
