"""Two hosts of two simulated devices each against one of four: the same stages."""

import errno
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from test_loop import ALL, same_stages

from finetune_wrappers.training.store import Store

SCRIPT = pathlib.Path(__file__).with_name("run_hosts.py")


def free_port():
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def run_hosts(workdir, number, inner):
  """What every host printed."""
  port = free_port()
  commands = [
    [sys.executable, str(SCRIPT), str(workdir), str(number), str(place), str(port), str(4 // number), inner]
    for place in range(number)
  ]
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  hosts = [subprocess.Popen(command, **pipes) for command in commands]
  try:
    said = [host.communicate(timeout=300) for host in hosts]
  finally:
    for host in hosts:
      host.kill()
  assert [host.returncode for host in hosts] == [0] * number, said
  return [out.splitlines()[-8:] for out, _ in said]


@pytest.mark.parametrize("inner", ["map", "data"])
def test_two_hosts_do_what_one_does(tmp_path, inner):
  said = run_hosts(tmp_path / "two", 2, inner)
  assert said[0] == said[1], "the first host decides, also when to stop"
  assert said[0][0].startswith("stopped with ")
  assert said[0][1:4] == ["refused: workdir: is full", f"errno {errno.ENOSPC}", "failed: a mistake"]
  assert said[0][4:5] + said[0][6:] == ["together: lost", "flags (True, False, True) value", '{"decided by": 0}']
  assert said[0][5].startswith("workdir: hosts see different places")
  run_hosts(tmp_path / "one", 1, inner)
  if inner == "map":
    same_stages(Store(tmp_path / "two"), Store(tmp_path / "one"))
  for stage in ALL:  # across hosts, gradients are summed in another order
    stores = (Store(tmp_path / name) for name in ("two", "one"))
    flat = [np.concatenate([x.ravel() for x in jax.tree.leaves(s.load(stage)[0]["params"])]) for s in stores]
    assert np.linalg.norm(flat[0] - flat[1]) < 1e-6 * np.linalg.norm(flat[1])
  stages = [path.name for path in (tmp_path / "two" / "stages").iterdir()]
  assert sorted(stages) == sorted(stage.key for stage in ALL)
  assert list((tmp_path / "two" / "cohorts").iterdir()) == []
