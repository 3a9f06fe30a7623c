"""--dry_run: the plan that is printed is the one that would run, and nothing is trained."""

import pytest
from hostile import config_of

from experiments import cluster, dry_run, runner
from finetune_wrappers.training import calibration, schedule
from finetune_wrappers.training.failures import Interrupted
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.loop import Trainer
from finetune_wrappers.training.schedule import Work
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


def test_a_program_of_several_lines_is_timed_and_counted_once(tmp_path, monkeypatch):
  config = config_of("fig27_reft")
  with config.unlocked():
    config.tasks, config.lanes_per_program = ("counter",), 2
  measured, found, timed = [], [], calibration.timed
  monkeypatch.setattr(calibration, "timed", lambda *args: measured.append(args) or timed(*args))
  lines = dry_run.Meter.lines
  monkeypatch.setattr(dry_run.Meter, "lines", lambda self: found.append((self, lines(self))) or found[0][1])
  dry_run.describe(config, str(tmp_path))
  ((meter, several),) = found
  kinds = {lane.kind for line in several for work in line.works for lane in work.lanes}
  assert kinds == {"finetune", "reft", "scratch_ft"} and len(several) > 1
  assert len(measured) == 1 and len(meter._compiled) == 1, "every program has two lanes on a device of its own"


def speed_of(layout, lanes):
  return dry_run.Speed(
    layout, lanes, flops=1.0, memory=1, kept=1, compile_seconds=10.0, step_seconds=0.5, eval_seconds=2.0,
    save_seconds=0.25,
  )  # fmt: skip


def test_the_time_of_a_work_is_its_share_of_a_program_and_its_saves():
  lanes = [stage for stage in runner.plan_of(config_of("tab03_behaviour")).stages if isinstance(stage, TrainStage)]
  steps, evaluations = lanes[0].optimizer.steps, len(lanes[0].optimizer.eval_steps)
  program = 0.5 * steps + 2.0 * evaluations
  speed = speed_of(Layout(1, "map"), 4)
  assert speed.seconds(Work(tuple(lanes[:4]))) == pytest.approx(program + 4 * 0.25)
  assert speed.seconds(Work(tuple(lanes[:2]), position=steps // 2)) == pytest.approx(program / 2 / 2 + 2 * 0.25)


def test_the_layout_of_an_earlier_run_is_the_one_that_is_timed(tmp_path):
  config = config_of("tab03_behaviour")
  with config.unlocked():
    config.tasks, config.lanes_per_program, config.layout.devices = ("counter",), 4, 0
  stage = next(s for s in runner.plan_of(config).stages if isinstance(s, TrainStage))
  assert "| 1xvmap |" not in dry_run.describe(config, str(tmp_path))
  name = schedule.layout_name(schedule.identity_of(stage))
  Store(tmp_path).remember(name, {"layout": {"devices": 1, "inner": "vmap"}, "lanes": 4, "lane_steps_per_second": {}})
  assert "| 1xvmap |" in dry_run.describe(config, str(tmp_path))


def test_flags_of_other_hosts_need_distributed():
  cluster.flags.FLAGS.mark_as_parsed()
  cluster.join()
  cluster.flags.FLAGS.num_processes = 2
  with pytest.raises(InputError, match="num_processes: 2 .*--distributed"):
    cluster.join()
  cluster.flags.FLAGS.num_processes = None
