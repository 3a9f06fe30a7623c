"""--dry_run: the plan that is printed is the one that would run, and nothing is trained."""

import pytest
from hostile import config_of

from experiments import cluster, dry_run, runner
from finetune_wrappers.training.loop import Trainer
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


def test_flags_of_other_hosts_need_distributed():
  cluster.flags.FLAGS.mark_as_parsed()
  cluster.join()
  cluster.flags.FLAGS.num_processes = 2
  with pytest.raises(InputError, match="num_processes: 2 .*--distributed"):
    cluster.join()
  cluster.flags.FLAGS.num_processes = None
