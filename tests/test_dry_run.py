"""--dry_run: the plan that is printed is the one that would run, and nothing is trained."""

import tempfile

import pytest
from hostile import config_of

from experiments import cluster, dry_run, runner
from experiments.progress import Progress
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


def test_what_checkpoints_have_is_not_counted_again(tmp_path, monkeypatch):
  config = config_of("tab03_behaviour")
  with config.unlocked():
    config.tasks, config.lanes_per_program = ("counter",), 100
  before = total_flops(dry_run.describe(config, str(tmp_path)))
  asked = iter([False] * 3)  # before compiling, before training, after the first evaluation
  shown = []
  monkeypatch.setattr(Progress, "__call__", lambda self, done, total, text: shown.append((done, total)))
  with pytest.raises(Interrupted) as stopped:
    runner.run(config, str(tmp_path), lambda: next(asked, True))
  done, total = shown[-1]
  assert str(stopped.value) == f"stopped with {done} of {total} steps of all runs done" and 0 < done < total
  after = total_flops(dry_run.describe(config, str(tmp_path)))
  assert after == pytest.approx(before * (total - done) / total, rel=1e-2)


def test_what_is_not_known_is_said_before_anything_is_made(tmp_path, capsys, monkeypatch):
  config = config_of("fig27_reft")
  with config.unlocked():
    config.tasks = ("counter",)
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

  def made(self, stage):
    said = capsys.readouterr().err
    assert "fig27_reft: 20 stages, 0 cached, 20 missing (2 to compile or draw, 18 to train)" in said
    assert "not known yet: FLOPs, sizes, times. 2 models are compiled" in said and "1 programs are" in said
    assert "making what training begins with" in said
    assert list(tmp_path.iterdir()), "it has a temporary folder by now"
    raise KeyboardInterrupt

  monkeypatch.setattr(dry_run.Roots, "__call__", made)
  with pytest.raises(KeyboardInterrupt):
    dry_run.describe(config, str(tmp_path / "runs"))
  assert not list(tmp_path.iterdir())


def test_progress_counts_the_programs_that_are_timed(tmp_path, monkeypatch):
  config = config_of("tab03_behaviour")
  with config.unlocked():
    config.lanes_per_program = 100
  seen = []
  monkeypatch.setattr(Progress, "__call__", lambda self, done, total, text: seen.append((done, total)))
  speed = speed_of(Layout(1, "map"), 4)
  monkeypatch.setattr(dry_run.Meter, "_measure", lambda self, work: speed)
  dry_run.describe(config, str(tmp_path))
  assert seen == [(0, 2), (1, 2), (2, 2)]


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
