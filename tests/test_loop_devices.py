"""A run that goes on with another number of devices: 1, then 8, then 2."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
from run_devices_resumed import lanes

from finetune_wrappers.training.store import Store

SCRIPT = pathlib.Path(__file__).with_name("run_devices_resumed.py")


def lane_steps(workdir, devices, patience=10**4):
  command = [sys.executable, str(SCRIPT), str(workdir), str(devices), str(patience)]
  return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)


def flat(store, lane):
  return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(store.load(lane)[0]["params"])])


def test_nothing_is_lost_and_the_next_20_updates_agree(tmp_path):
  trained = [lane_steps(tmp_path / "moved", *run) for run in ((1, 22), (8, 12), (2,))]
  assert min(trained) > 0 and sum(trained) == 8 * 40
  assert trained[0] <= 8 * 20, "the last 20 updates are those of other devices"
  assert lane_steps(tmp_path / "stayed", 1) == 8 * 40
  moved, stayed = Store(tmp_path / "moved"), Store(tmp_path / "stayed")
  for lane in lanes():
    a, b = flat(moved, lane), flat(stayed, lane)
    assert np.linalg.norm(a - b) < 1e-6 * np.linalg.norm(b)
    np.testing.assert_array_equal(moved.load(lane)[0]["metrics"], stayed.load(lane)[0]["metrics"])
    facts, parts = moved.facts(lane), moved.facts(lane)["earlier"]
    assert [part["layout"]["devices"] for part in (*parts, facts)] == [1, 8, 2]
    assert [part["from"] for part in parts] == [0, trained[0] // 8] and parts[0]["jax"] == facts["jax"]
    assert {part["precision"] for part in (*parts, facts)} == {"highest"}
    assert "earlier" not in stayed.facts(lane)
  assert list((tmp_path / "moved" / "cohorts").iterdir()) == []
