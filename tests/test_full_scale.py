"""The command at full scale: two hosts, and the paper's GPT spread over devices. Minutes each: `-m slow`."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from test_hosts import free_port

from configs import fig05_behaviour
from experiments import runner
from finetune_wrappers.training.stages import TrainStage, ancestors
from finetune_wrappers.training.store import Store

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[1]


def begin(workdir, devices, *flags):
  command = [sys.executable, "-m", "experiments.main", *flags, f"--workdir={workdir}"]
  environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
  return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end(*processes):
  try:
    said = [process.communicate(timeout=1800) for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0] * len(processes), said
  return [out for out, _ in said]


def test_two_hosts_write_the_rows_that_one_writes(tmp_path):
  flags = ("--config=configs/fig05_behaviour.py:smoke", "--config.lanes_per_program=4", "--config.layout.devices=4")
  one = begin(tmp_path / "one", 4, *flags)
  end(one)
  joined = ("--distributed", f"--coordinator_address=127.0.0.1:{free_port()}", "--num_processes=2")
  first, second = end(*(begin(tmp_path / "two", 2, *flags, *joined, f"--process_id={host}") for host in range(2)))
  assert "rows.jsonl" in first and "rows.jsonl" not in second
  folders = [tmp_path / name / "fig05_behaviour" for name in ("one", "two")]
  assert len({(folder / "rows.jsonl").read_bytes() for folder in folders}) == 1
  assert {path.name for path in folders[1].iterdir()} == {"rows.jsonl", "config.json", "summary.md", "figure.png"}


def test_the_papers_gpt_trains_data_parallel(tmp_path):
  """Two updates of pretraining and two of fine-tuning, each batch on one device or in halves on two."""
  config = fig05_behaviour.get_config("paper")
  short = {
    "seeds": (0,), "finetune.priors": ("low",), "finetune.learning_rates": (1e-4,), "finetune.c_trs": (1.0,),
    "pretrain.steps": (2,), "pretrain.eval_size": 8, "pretrain.eval_fractions": (1.0,),
    "training.steps": 2, "training.warmup_steps": 1, "training.eval_steps": (2,), "training.eval_size": 8,
  }  # fmt: skip
  with config.unlocked():
    config.update_from_flattened_dict(short)
  flags = ["--config=configs/fig05_behaviour.py:paper", *(f"--config.{name}={value}" for name, value in short.items())]
  for devices, inner in ((1, "map"), (2, "data")):
    layout = (f"--config.layout.devices={devices}", f"--config.layout.inner={inner}")
    end(begin(tmp_path / inner, devices, *flags, *layout))
  stages = {s.key: s for stage in runner.plan_of(config).stages for s in ancestors(stage) if isinstance(s, TrainStage)}
  assert {stage.kind for stage in stages.values()} == {"pretrain", "finetune"}
  for stage in stages.values():
    whole, halves = (Store(tmp_path / inner).load(stage)[0]["params"] for inner in ("map", "data"))
    flat = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (whole, halves)]
    assert len(flat[0]) > 2e6
    assert np.linalg.norm(flat[0] - flat[1]) < 1e-6 * np.linalg.norm(flat[0])
