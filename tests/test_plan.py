"""The plan: which stages a config needs, how many, and where noise and rates go."""

import itertools
import math

import pytest

from configs import fig55_single_weights, quickstart, tab03_behaviour, tab04_reft_grid
from experiments.measures import pruning
from experiments.plan import MOST_RUNS, plans
from finetune_wrappers.training.stages import CompileStage, root_of
from finetune_wrappers.types import InputError


def test_table_3_at_paper_trains_28_cells_by_5_seeds_for_each_task():
  found = plans(tab03_behaviour.get_config("paper"))
  assert [plan.task_name for plan in found] == ["counter", "max_identifier"]
  cells = itertools.product((0.1, 0.01, 0.001, 0.0001), (0, 0.2, 0.5, 0.6, 0.8, 0.9, 1), range(5))
  expected = sorted(cells)
  for plan in found:
    stages = plan.finetunes()
    assert sorted((stage.learning_rate, stage.objective.c_tr, stage.seed) for stage in stages) == expected
    assert {(s.kind, s.objective.target, s.parent) for s in stages} == {("finetune", "ft", plan.compiled())}
  assert len({stage.key for plan in found for stage in plan.finetunes()}) == 2 * 28 * 5


def test_reft_is_only_at_rates_below_the_fine_tunings():
  plan = plans(tab04_reft_grid.get_config("paper"))[0]
  stages = plan.refts()
  pairs = {(0.1, 0.01), (0.1, 0.001), (0.1, 0.0001), (0.01, 0.001), (0.01, 0.0001), (0.001, 0.0001)}
  assert {(stage.parent.learning_rate, stage.learning_rate) for stage in stages} == pairs
  assert len(stages) == len({stage.key for stage in stages}) == 6 * 2 * 5
  assert {stage.parent.key for stage in stages} == {stage.key for stage in plan.finetunes()}
  assert all((stage.kind, stage.objective.target, stage.objective.c_tr) == ("reft", "pt", 0.0) for stage in stages)
  assert all(stage.seed == stage.parent.seed for stage in stages)


def test_controls_are_compiled_for_o_ft_and_trained_on_o_pt_by_refts_recipe():
  plan = plans(tab04_reft_grid.get_config("paper"))[1]
  controls = plan.controls()
  assert {(c.learning_rate, c.seed) for c in controls} == set(itertools.product((0.01, 0.001, 0.0001), range(5)))
  assert len(controls) == 15
  for control in controls:
    assert (control.kind, control.parent.operand) == ("scratch_ft", "ft")
    assert (control.objective.target, control.objective.c_tr) == ("pt", 0.0)
  programs = [{(s.recipe, root_of(s).architecture) for s in stages} for stages in (controls, plan.refts())]
  assert programs[0] == programs[1] and len(programs[0]) == 1


def test_noise_is_added_to_compiled_weights_only():
  for plan in plans(tab04_reft_grid.get_config("quick")):
    stages = [*plan.finetunes(), *plan.refts(), *plan.controls()]
    assert {stage.kind for stage in stages} == {"finetune", "reft", "scratch_ft"}
    for stage in stages:
      noise = {"counter": 1e-6, "max_identifier": 1e-4}[plan.task_name]
      assert stage.noise_std == (noise if isinstance(stage.parent, CompileStage) else 0.0)


@pytest.mark.parametrize("field", ["tasks", "seeds", "finetune.learning_rates", "finetune.c_trs", "finetune.targets"])
def test_an_empty_sweep_is_refused_by_name(field):
  config = quickstart.get_config("smoke")
  config.unlock()
  config.update_from_flattened_dict({field: ()})
  with pytest.raises(InputError, match=rf"\A{field}: empty"):
    plans(config)


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("ks", (0,), r"pruning.ks: \(0,\)"),
    ("ks", (1, 2), r"pruning.ks: \(1, 2\)"),
    ("ks", (0, 2), "pruning.single_weights: needs"),
    ("units", ("neuron",), "pruning.single_weights: needs"),
  ],
)
def test_pruning_without_what_its_claims_compare_with_is_refused(field, value, message):
  config = fig55_single_weights.get_config("smoke")
  config.unlock()
  assert pruning.stages(plans(config)[0])
  config.pruning[field] = value
  with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
    pruning.stages(plans(config)[0])


def test_random_pruning_is_no_score_to_ask_for_since_it_always_runs():
  config = quickstart.get_config("smoke")
  config.unlock()
  config.pruning.scores = ("gradient", "random")
  with pytest.raises(InputError, match="pruning.scores: 'random' is not one of gradient, gradient_abs, magnitude"):
    pruning.stages(plans(config)[0])


def test_more_runs_than_a_plan_can_hold_are_refused_before_they_are_counted_out():
  config = tab04_reft_grid.get_config("smoke")
  config.unlock()
  each = len(config.tasks) * math.prod(map(len, (config.finetune.learning_rates, config.finetune.c_trs)))
  each *= 1 + len(config.reft.learning_rates)
  for number in (10**4, 10**5):
    config.seeds = tuple(range(number))
    with pytest.raises(InputError, match=rf"\Aseeds: [^\n]* {each * number} runs; give at most 20000 at once[^\n]*\Z"):
      plans(config)
  config.seeds = tuple(range(MOST_RUNS // each))
  assert len(plans(config)) == len(config.tasks)
