"""Surroundings in which a run would fail late or without a word: one line before anything is trained."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from experiments import environment
from finetune_wrappers.types import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
  ("name", "value", "word"),
  [
    ("PYTHONOPTIMIZE", "1", "assert"),
    ("PYTHONOPTIMIZE", "2", "assert"),
    ("JAX_NUM_CPU_DEVICES", "x", "'x' is not allowed"),
    ("JAX_PLATFORMS", "cuda", "'cuda' cannot be used"),
    ("JAX_PLATFORMS", "cpuu", "known backends"),
    ("JAX_ENABLE_X64", "1", "float32"),
  ],
)
def test_the_command_ends_with_2_and_one_line(name, value, word, tmp_path):
  command = [sys.executable, "-m", "experiments.main", "--config=configs/fig16_labels.py:smoke"]
  environ = {**os.environ, name: value}
  done = subprocess.run(
    [*command, f"--workdir={tmp_path}"], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
  )
  assert done.returncode == 2 and done.stdout == "", done.stderr
  assert done.stderr.startswith(f"error: {name}: ") and word in done.stderr and done.stderr.count("\n") == 1
  assert not list(tmp_path.iterdir())


def test_a_number_of_devices_is_whole_and_above_0(monkeypatch):
  for value in ("0", "-1", "1.5", "", "²"):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", value)
    with pytest.raises(InputError, match=r"\AJAX_NUM_CPU_DEVICES: "):
      environment.check()
  monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
  environment.check()


def test_float64_is_refused_in_a_notebook_too():
  jax.config.update("jax_enable_x64", True)
  try:
    with pytest.raises(InputError, match="JAX_ENABLE_X64"):
      environment.use_all_cores()
  finally:
    jax.config.update("jax_enable_x64", False)
  environment.use_all_cores()
