"""Trains lanes with programs compiled, kept, read and broken, and prints what came out; run by test_compiled.py."""

import json
import pathlib
import resource
import sys
import warnings

import jax
from tiny import LIGHT, RECIPE, lanes_of, run

from experiments import compiled
from finetune_wrappers.training.cohort import Cohort
from finetune_wrappers.training.disk import checksum
from finetune_wrappers.training.lanes import Layout


def train(choice, workdir):
  """What was trained, how many programs were read from the folder, and what was warned of."""
  hits = []
  jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
  jax.clear_caches()
  with warnings.catch_warnings(record=True) as caught, compiled.reused(choice, str(workdir)):
    program = Cohort(LIGHT, RECIPE, Layout(1, "map"))
    state, metrics = run(program, *lanes_of(0, 3, LIGHT))
  jax.monitoring.clear_event_listeners()
  return {
    "checksum": checksum((state._asdict(), metrics)),
    "hits": len(hits),
    "warned": [str(w.message) for w in caught],
  }


def entries(workdir):
  return sorted(pathlib.Path(compiled.folder(workdir)).glob("*-cache"))


def main():
  root = pathlib.Path(sys.argv[1])
  if sys.argv[2:]:
    print(json.dumps(train("on", root / "shared")))
    return
  found = {"off": train("off", root / "a"), "auto": train("auto", root / "a"), "untouched": not (root / "a").exists()}
  found |= {"cold": train("on", root / "a"), "warm": train("on", root / "a")}
  for entry in entries(root / "a"):
    entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
  found["damaged"] = train("on", root / "a")
  (root / "b").mkdir()
  (root / "b" / "compiled").write_text("not a folder")
  found["unwritable"] = train("on", root / "b")
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))  # as a disk that fills up within an entry
  found["full"] = train("on", root / "c")
  resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  print(json.dumps({**found, "left": jax.config.jax_compilation_cache_dir}))


if __name__ == "__main__":
  main()
