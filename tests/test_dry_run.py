"""--dry_run: the plan that is printed is the one that would run, and nothing is trained."""

import pytest
from hostile import config_of

from experiments import cluster, dry_run, runner
from finetune_wrappers.training import cohort as cohorts
from finetune_wrappers.training.loop import Interrupted, Trainer
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


def test_flags_of_other_hosts_need_distributed():
  cluster.flags.FLAGS.mark_as_parsed()
  cluster.join()
  cluster.flags.FLAGS.num_processes = 2
  with pytest.raises(InputError, match="num_processes: 2 .*--distributed"):
    cluster.join()
  cluster.flags.FLAGS.num_processes = None
