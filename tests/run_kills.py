"""Runs a config again and again, killed at random moments; run by test_kills.py.

Arguments: setting, kills, seed, folder. Makes folder/whole without a kill, then folder/0, folder/1, ... until there
were that many kills; prints how many each of them took.
"""

import importlib
import json
import os
import pathlib
import random
import select
import signal
import sys
import time
import traceback

from experiments import progress, runner
from experiments.registry import registered

EVERY_OTHER = tuple(range(0, 41, 2))  # as many checkpoints
CHANGES = {
  "tracr": ("tab03_behaviour", {"tasks": ("counter",), "training.steps": 40, "training.eval_steps": EVERY_OTHER}),
  "pcfg": ("fig05_behaviour", {"training.steps": 40, "training.eval_steps": EVERY_OTHER, "seeds": (0,)}),
  "probes": ("fig08_probes", {"seeds": (0,), "probes.steps": 40, "probes.drops": (20, 30)}),
}
# What a run says when what is to be killed has begun.
BEGUN = {"tracr": "finetune", "pcfg": "pretrain", "probes": "measuring"}


def config_of(setting):
  name, changes = CHANGES[setting]
  config = importlib.import_module(f"configs.{name}").get_config("smoke")
  with config.unlocked():
    config.checkpoint_seconds = 0.0
    config.lanes_per_program = 2
    config.update_from_flattened_dict(changes)
  return config


def work(setting, workdir, said):
  """In a child: runs the config, and tells through the pipe when it has begun."""
  show = progress.Progress.__call__

  def spy(self, done, total, text):
    if BEGUN[setting] in text:
      os.write(said, b"x")
    show(self, done, total, text)

  progress.Progress.__call__ = spy
  runner.run(config_of(setting), str(workdir))


def attempt(setting, workdir, patience):
  """(whether it came to its end, seconds from its beginning); killed after `patience` seconds of them."""
  heard, said = os.pipe()
  child = os.fork()  # the parent never uses a device
  if child == 0:
    try:
      work(setting, workdir, said)
    except BaseException:  # whatever it is, the parent must hear of it
      traceback.print_exc()
      os._exit(1)
    os._exit(0)
  os.close(said)
  select.select([heard], [], [])
  begun = time.monotonic()
  while time.monotonic() - begun < patience:
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
      os.close(heard)
      assert status == 0, (status, str(workdir))
      return True, time.monotonic() - begun
    time.sleep(0.005)
  os.kill(child, signal.SIGKILL)
  os.waitpid(child, 0)
  os.close(heard)
  return False, patience


def main(setting, kills, seed, folder):
  draw = random.Random(seed)
  _, seconds = attempt(setting, folder / "whole", 3600.0)
  taken = []
  while sum(taken) < kills:
    workdir, count = folder / str(len(taken)), 0
    while True:
      wanted = sum(taken) + count < kills
      ended, _ = attempt(setting, workdir, draw.uniform(0, 0.12 * seconds) if wanted else 3600.0)
      if ended:
        break
      count += 1
    taken.append(count)
  print(json.dumps(taken))


# Imported before the forks, once for all; nothing here may ask JAX for a device.
for package, attribute in (("settings", "SETTING"), ("measures", "MEASURE"), ("reports", "REPORT")):
  registered(f"experiments.{package}", attribute)

if __name__ == "__main__":
  main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(sys.argv[4]))
