"""A workdir that really turns read-only under a run: one line, exit 2, and nothing already computed is lost."""

import contextlib
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
_LATE = 20  # steps
# Even root cannot write to what is not writable once it has given up CAP_DAC_OVERRIDE and is another program.
_OBEYING = """
import ctypes, os, sys
if os.getuid() == 0:
  PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
  assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def _start(workdir, said):
  flags = ["--config=configs/tab03_behaviour.py:smoke", f"--workdir={workdir}", "--config.tasks=('counter',)"]
  steps = ["--config.training.steps=100", f"--config.training.eval_steps={tuple(range(0, 101, 5))}"]
  more = ["--config.checkpoint_seconds=0.0", "--config.layout.devices=1", "--config.finetune.learning_rates=(0.1,)"]
  command = [sys.executable, "-c", _OBEYING, "-m", "experiments.main", *flags, *steps, *more]
  environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
  return subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, env=environment)


def _set_mode(workdir, mode):
  for folder, _, _ in os.walk(workdir, topdown=False):
    with contextlib.suppress(FileNotFoundError):  # a save's own folders come and go
      os.chmod(folder, mode)


def _checkpoints(workdir):
  return [int(path.name) for path in workdir.glob("cohorts/*/*") if path.name.isdigit()]


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_a_workdir_that_turns_read_only_ends_in_one_line_and_the_run_goes_on_later(tmp_path):
  workdir, said = tmp_path / "workdir", tmp_path / "said"
  with said.open("w") as out:
    run = _start(workdir, out)
    while run.poll() is None and max(_checkpoints(workdir), default=0) < _LATE:
      time.sleep(0.01)
    _set_mode(workdir, 0o555)
    assert run.wait(600) == 2, said.read_text()
  lines = [line for line in re.split(r"[\r\n]+", said.read_text()) if line and "step/s" not in line]
  assert len(lines) == 1 and re.match(r"error: workdir: .*cannot be written", lines[0]), lines
  _set_mode(workdir, 0o755)
  with said.open("w") as out:
    assert _start(workdir, out).wait(600) == 0
  begun = [float(done) for done in re.findall(r"finetune counter, 2 lanes: .*?\| ([\d.]+)/", said.read_text())]
  assert min(done for done in begun if done) > 2 * _LATE  # steps of two lanes: goes on from a checkpoint
  assert (workdir / "tab03_behaviour" / "rows.jsonl").exists()
