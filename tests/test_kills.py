"""kill -9 at random moments: what is left in the end is to the bit what a run without a kill leaves."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = pathlib.Path(__file__).with_name("run_kills.py")
KILLS = 20


def results(workdir):
  """Bytes of rows, and of everything in every stage."""
  found = {path.parent.name: path.read_bytes() for path in workdir.glob("*/rows.jsonl")}
  for stage in sorted((workdir / "stages").iterdir()):
    if not stage.name.startswith("."):  # what a killed save leaves is no stage
      leaves = jax.tree_util.tree_leaves_with_path(ocp.load(stage / "arrays"))
      found |= {f"{stage.name}{jax.tree_util.keystr(path)}": np.asarray(leaf).tobytes() for path, leaf in leaves}
  return found


@pytest.mark.parametrize("setting", ["tracr", "pcfg", "probes"])
def test_killed_at_random_moments_and_continued_to_the_same_bits(setting, tmp_path):
  command = [sys.executable, str(SCRIPT), setting, str(KILLS), "0", str(tmp_path)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=_environment())
  assert done.returncode == 0, done.stderr[-3000:]
  taken = json.loads(done.stdout.splitlines()[-1])
  assert sum(taken) >= KILLS
  expected = results(tmp_path / "whole")
  assert len(expected) > 20
  for run in range(len(taken)):
    assert results(tmp_path / str(run)) == expected
    assert list((tmp_path / str(run) / "cohorts").iterdir()) == []


def _environment():
  return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}  # JAX warns of any fork
