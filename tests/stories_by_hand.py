"""Rows of stories made by hand, and reports made of them."""

from handmade import facts_of, table_lines

from configs import fig11_twist, fig31_34_curves, fig35_38_probes, tab01_generation
from experiments.reports import story_curves, story_overview, story_probes, story_table
from finetune_wrappers.reporting.rows import make_row

STEPS = (0, 10, 30, 100)
F, M = "F, η_L 0.001", "F + Mix & Match, η_L 0.001"
CONTROL = "not in pretraining"


def rows_of(stage, metric, values, *, step=100, **swept):
  """A row for each seed; None for a diverged run."""
  common = {"experiment": "e", "setting": "stories", "task": "stories", "stage": stage, "metric": metric, "step": step}
  return [make_row(**common, seed=s, value=v, diverged=v is None, **swept) for s, v in enumerate(values)]


def curve(stage, by_step, *, metric="generation_score", protocol="filter", reft=3e-4):
  """by_step: values of the seeds at each of STEPS."""
  swept = {} if stage == "scratch_ft" else {"protocol": protocol, "learning_rate": 1e-3}
  swept |= {} if stage == "finetune" else {"reft_learning_rate": reft, "reft_protocol": "only_twist"}
  pairs = zip(STEPS, by_step, strict=True)
  return [row for step, values in pairs for row in rows_of(stage, metric, values, step=step, **swept)]


def base(values, metric="generation_score"):
  return rows_of("pretrain", metric, values, reft_learning_rate=3e-3, reft_protocol="none")


UP = [[0.1] * 3, [0.9] * 3, [0.9] * 3, [0.9] * 3]
LATE = [[0.1] * 3, [0.1] * 3, [0.1] * 3, [0.9] * 3]
NEVER = [[0.1] * 3] * 4
THERE = [[0.9] * 3] * 4
GONE = [[None] * 3] * 4
BASE = [0.9, 0.9, 0.9]


def first(by_step, seeds=1):
  return [values[:seeds] for values in by_step]


def made_of(module, rows, preset="quick", arrays=None, **changed):
  config = {
    story_table: tab01_generation, story_curves: fig31_34_curves, story_probes: fig35_38_probes,
    story_overview: fig11_twist,
  }[module].get_config(preset)  # fmt: skip
  with config.unlocked():
    config.update_from_flattened_dict(changed)
  return module.make(rows, arrays or {}, facts_of(config))


def answer_of(made, claim):
  """(answer, evidence) of the claim that has these words."""
  (line,) = [line for line in table_lines(made.verdict) if claim in line[0]]
  return line[1], line[2]
