"""--dry_run: the plan that is printed is the one that would run, and nothing is trained."""

import pytest
from hostile import config_of

from experiments import cluster, dry_run, runner
from finetune_wrappers.training import cohort as cohorts
from finetune_wrappers.training import loop
from finetune_wrappers.training.failures import Interrupted
from finetune_wrappers.training.loop import Trainer
from finetune_wrappers.training.stages import TrainStage
from finetune_wrappers.training.store import Store
from finetune_wrappers.types import InputError


def test_the_plan_counts_what_is_cached_and_missing_and_trains_nothing(tmp_path, monkeypatch):
  config = config_of("tab03_behaviour")
  with config.unlocked():
    config.tasks, config.lanes_per_program = ("counter",), 2
  lanes = len(config.finetune.learning_rates) * len(config.finetune.c_trs) * len(config.seeds)
  with monkeypatch.context() as patched:
    patched.setattr(Trainer, "_train", None)
    plan = dry_run.describe(config, str(tmp_path / "new"))
  assert not (tmp_path / "new").exists()
  assert f"{lanes + 1} stages, 0 cached, {lanes + 1} missing (1 to compile or draw, {lanes} to train)" in plan
  assert f"| {lanes} finetune counter | {-(-lanes // 2)} x 2 | 1xmap | {config.training.steps} |" in plan
  assert "FLOPs" in plan and "measuring comes on top" in plan
  runner.run(config, str(tmp_path / "run"))
  assert f"{lanes + 1} cached, 0 missing" in dry_run.describe(config, str(tmp_path / "run"))


def total_flops(plan):
  return float(plan.rpartition("in all: ")[2].split()[0])


def test_what_checkpoints_have_is_not_counted_again(tmp_path):
  config = config_of("tab03_behaviour")
  with config.unlocked():
    config.tasks, config.lanes_per_program = ("counter",), 100
  before = total_flops(dry_run.describe(config, str(tmp_path)))
  asked = iter([False] * 3)  # before compiling, before training, after the first evaluation
  with pytest.raises(Interrupted, match="stopped at step [1-5] of 6") as stopped:
    runner.run(config, str(tmp_path), lambda: next(asked, True))
  left = 6 - int(str(stopped.value).split()[3])
  assert total_flops(dry_run.describe(config, str(tmp_path))) == pytest.approx(before * left / 6, rel=1e-2)


def test_a_program_of_several_groups_is_timed_and_counted_once(tmp_path, monkeypatch):
  config = config_of("fig27_reft")
  with config.unlocked():
    config.tasks, config.lanes_per_program = ("counter",), 2
  measured, groups, timed = [], [], cohorts.timed
  monkeypatch.setattr(cohorts, "timed", lambda *args: measured.append(args) or timed(*args))
  monkeypatch.setattr(
    dry_run.Meter, "group", lambda *args, of=dry_run.Meter.group: groups.append(of(*args)) or groups[-1]
  )
  dry_run.describe(config, str(tmp_path))
  assert {lane.kind for group in groups for lane in group.lanes} == {"finetune", "reft", "scratch_ft"}
  assert len(groups) == 2 and len(measured) == 1 and [group.compilations for group in groups] == [1, 0]


def speed_of(layout):
  return dry_run.Speed(
    layout, flops=1.0, memory=1, kept=1, compile_seconds=10.0, step_seconds=0.5, eval_seconds=2.0, save_seconds=0.25
  )


def test_the_time_of_a_group_is_its_programs_compilations_and_saves():
  lanes = [stage for stage in runner.plan_of(config_of("tab03_behaviour")).stages if isinstance(stage, TrainStage)]
  steps, evaluations = lanes[0].settings.steps, len(lanes[0].settings.eval_steps)
  program = 0.5 * steps + 2.0 * evaluations
  speed = speed_of(cohorts.Layout(1, "map"))
  group = dry_run.Group(lanes[:5], 5 * steps, size=2, compilations=2, speed=speed)
  assert group.seconds == pytest.approx(2 * 10 + 2.5 * program + 5 * 0.25)
  half = dry_run.Group(lanes[:5], 5 * steps // 2, size=2, compilations=0, speed=speed)
  assert half.seconds == pytest.approx(2.5 * program / 2 + 5 * 0.25)


def test_the_layout_of_an_earlier_run_is_the_one_that_is_timed(tmp_path):
  config = config_of("tab03_behaviour")
  with config.unlocked():
    config.tasks, config.lanes_per_program, config.layout.devices = ("counter",), 4, 0
  stage = next(s for s in runner.plan_of(config).stages if isinstance(s, TrainStage))
  assert "| 1xvmap |" not in dry_run.describe(config, str(tmp_path))
  name = loop.layout_name(loop.identity_of(stage))
  Store(tmp_path).remember(name, {"layout": {"devices": 1, "inner": "vmap"}, "lanes": 4, "lane_steps_per_second": {}})
  assert "| 1xvmap |" in dry_run.describe(config, str(tmp_path))


def test_flags_of_other_hosts_need_distributed():
  cluster.flags.FLAGS.mark_as_parsed()
  cluster.join()
  cluster.flags.FLAGS.num_processes = 2
  with pytest.raises(InputError, match="num_processes: 2 .*--distributed"):
    cluster.join()
  cluster.flags.FLAGS.num_processes = None
