"""Figs. 5 to 9 at :quick, from nothing: the pattern of the paper shows. Run by `make test-quick`."""

import importlib
import math

import pytest

from experiments import runner
from finetune_wrappers.reporting.rows import read_rows, select
from finetune_wrappers.statistics import first_passage, kaplan_meier_median

pytestmark = pytest.mark.quick
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def rows_of(tmp_path_factory):
  """Rows of a config at :quick; all share one workdir."""
  workdir = tmp_path_factory.mktemp("quick")

  def run(name):
    folder, *_ = runner.run(importlib.import_module(f"configs.{name}").get_config("quick"), str(workdir))
    return read_rows(folder / "rows.jsonl")

  return run


def values(rows, **chosen):
  """One for each seed."""
  found = [row["value"] for row in select(rows, **chosen)]
  assert len(found) == len(SEEDS), chosen
  return found


def test_behaviour_shows_the_wrapper(rows_of):
  """C_Tr = 1, low prior: O_FT where the correlation holds and nowhere else; C_Tr = 0: everywhere."""
  rows = rows_of("fig05_behaviour")
  tuned = {"stage": "finetune", "metric": "acc_ft", "prior": "low", "step": 200}
  assert min(values(rows, **tuned, c_tr=1.0, c_te=1)) > 0.9
  assert max(values(rows, **tuned, c_tr=1.0, c_te=0)) < 0.1
  assert min(values(rows, **tuned, c_tr=0.0, c_te=0)) > 0.9
  for prior, least in (("low", 0.9), ("medium", 0.9), ("high", 0.5)):  # seeds of the high prior differ: 80 +- 18 %
    assert min(values(rows, stage="pretrain", metric="acc_pt", prior=prior, step=800, c_te=0)) > least


def test_fine_tuning_takes_o_pt_away(rows_of):
  rows = rows_of("fig06_finetuning_curves")
  curve = {"stage": "finetune", "metric": "acc_pt", "prior": "low", "c_tr": 1.0, "c_te": 0}
  assert min(values(rows, **curve, step=0)) > 0.8 and max(values(rows, **curve, step=200)) < 0.5


def test_pruning_brings_back_more_than_random(rows_of):
  rows = rows_of("fig07_prune_neurons")
  cells = {"stage": "prune", "metric": "acc_pt", "prior": "low", "c_tr": 1.0, "c_te": 0}
  ks = {row["k"] for row in select(rows, stage="prune", metric="acc_pt")} - {0}
  best = max(ks, key=lambda k: sum(values(rows, **cells, score="gradient", k=k)))
  before, gradient, random = (
    sum(values(rows, **cells, score=s, k=k)) / len(SEEDS)
    for s, k in (("gradient", 0), ("gradient", best), ("random", best))
  )
  assert gradient > max(before, random) + 0.1


def test_probes_still_read_o_pt(rows_of):
  """More than of a model that never had it."""
  rows = rows_of("fig08_probes")
  probe = {"stage": "probe", "metric": "acc_probe", "reads": "pt", "block": 2}
  never = values(rows, **probe, model="never")
  assert sum(values(rows, **probe, prior="low", model="finetune", c_tr=1.0)) > sum(never) + 0.2 * len(SEEDS)


def test_reft_revives_o_pt_in_a_fraction_of_the_controls_steps(rows_of):
  rows = select(rows_of("fig09_reft"), metric="acc_pt", c_te=0)

  def median(**chosen):
    runs = [select(rows, **chosen, seed=seed) for seed in SEEDS]
    curves = [sorted((row["step"], row["value"]) for row in run) for run in runs]
    return kaplan_meier_median(
      [first_passage(steps=s, accuracies=a, threshold=0.8) for s, a in (zip(*c, strict=True) for c in curves)]
    )

  revived, learned = median(stage="reft", prior="low", c_tr=1.0), median(stage="scratch_ft")
  assert 0 < revived <= learned / 2 and math.isfinite(revived)
