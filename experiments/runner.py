"""Runs a config: trains what it needs and is missing, measures, writes rows, reports."""

import functools
import importlib
import io
import json
import os
import pathlib
import pkgutil
import subprocess
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import compiled
from experiments.measures import Measured
from experiments.models import Models
from experiments.plan import Plan
from experiments.progress import Progress
from finetune_wrappers.reporting.plots import save_figure
from finetune_wrappers.reporting.rows import read_rows, write_atomically, write_rows
from finetune_wrappers.training.cohort import Layout
from finetune_wrappers.training.loop import Interrupted, Trainer, provenance
from finetune_wrappers.training.store import Store, writing
from finetune_wrappers.types import InputError

SETTINGS = ("tracr", "pcfg")


def run(config: ConfigDict, workdir: str, stopping: Callable[[], bool] = lambda: False) -> tuple[pathlib.Path, str]:
  """Everything from a config to its folder.

  Args:
    config: from a module of `configs`.
    workdir: stages in it are shared by all experiments.
    stopping: asked every few seconds whether to save and raise Interrupted.

  Returns:
    (`workdir/<name>` with rows.jsonl, summary.md and figure.png, the short table to print).

  Raises:
    InputError: for anything the user can mend; what was trained until then is kept.
    Interrupted: if `stopping` says so; likewise.
  """
  if config.setting not in SETTINGS:
    raise InputError(f"setting: {config.setting!r} is not one of {', '.join(SETTINGS)}")
  use_all_cores()
  with compiled.reused(config.compilation_cache, workdir):
    return _run(config, workdir, stopping)


def use_all_cores() -> None:
  """One simulated CPU device a core, so that lanes run side by side.

  JAX takes this only before its backend starts; later, as when a notebook has used JAX already, the devices
  that are there are used.
  """
  try:
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
  except RuntimeError:
    return


def _run(config: ConfigDict, workdir: str, stopping: Callable[[], bool]) -> tuple[pathlib.Path, str]:
  plans = importlib.import_module(f"experiments.{config.setting}").plans(config)
  store = Store(workdir)
  measures = [_module("measures", name) for name in config.measures]
  _module("reports", config.report)  # before anything is trained for it
  stages = [stage for plan in plans for measure in measures for stage in measure.stages(plan)]
  with Progress() as progress:
    _trainer(config, plans[0], store, progress, stopping).run(stages)
    measured = _measure(config, plans, measures, store, progress, stopping)
  folder = pathlib.Path(workdir) / config.name
  facts = _facts(config, store, stages)
  with writing(folder):
    write_rows(folder / "rows.jsonl", measured.rows)
    write_atomically(folder / "config.json", json.dumps(facts, indent=1, sort_keys=True).encode())
    if measured.arrays:
      write_atomically(folder / "arrays.npz", _npz(measured.arrays))
  return folder, report(config, folder)


def _module(kind: str, name: str) -> Any:
  """A module of `experiments.measures` or `experiments.reports`."""
  package = importlib.import_module(f"experiments.{kind}")
  known = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
  if name not in known:
    raise InputError(f"{kind}: {name!r} is not one of {', '.join(known)}")
  return importlib.import_module(f"experiments.{kind}.{name}")


def report(config: ConfigDict, folder: pathlib.Path) -> str:
  """Figures and summary.md from what lies in the folder; trains and measures nothing.

  Returns:
    The short table to print.
  """
  rows = read_rows(folder / "rows.jsonl")
  facts = json.loads((folder / "config.json").read_text())
  arrays = dict(np.load(folder / "arrays.npz")) if (folder / "arrays.npz").exists() else {}
  made = _module("reports", config.report).make(rows, arrays, facts)
  with writing(folder):
    for name, figure in made.figures.items():
      save_figure(figure, folder / f"{name}.png")
    write_atomically(folder / "summary.md", made.markdown(facts).encode())
  return made.short


def _trainer(config: ConfigDict, plan: Plan, store: Store, progress, stopping) -> Trainer:
  layout = Layout(config.layout.devices, config.layout.inner) if config.layout.devices else None
  return Trainer(
    store,
    build=plan.build,
    model_of=plan.restore,
    layout=layout,
    lanes_per_program=config.lanes_per_program,
    progress=progress,
    checkpoint_seconds=config.checkpoint_seconds,
    stopping=stopping,
    facts={"commit": _commit()},
  )


def _measure(config: ConfigDict, plans, measures, store: Store, progress: Progress, stopping) -> Measured:
  named = list(zip(config.measures, measures, strict=True))
  parts = [(plan, name, measure, len(measure.stages(plan))) for plan in plans for name, measure in named]
  out, done, total = Measured(), 0, sum(count for *_, count in parts)
  progress.count("model")
  for plan, name, measure, count in parts:
    show = functools.partial(progress, total=total, text=f"measuring {name}, {plan.task_name}")
    on_load = functools.partial(_on_load, show, iter(range(done, done + count)), stopping)
    found = measure.measure(Models(store, plan, on_load))
    out.rows += found.rows
    out.arrays |= found.arrays
    done += count
  progress(total, total, "measured")
  return out


def _on_load(show, numbers, stopping) -> None:
  """A model's measurement begins as it is loaded; a measure may load one twice."""
  if stopping():
    raise Interrupted("stopped while measuring; every model is trained")
  show(next(numbers, None))


def _facts(config: ConfigDict, store: Store, stages) -> dict[str, Any]:
  """What a number needs to be cited: config, what trained the models, versions, commit."""
  own = [store.facts(stage) for stage in stages]
  devices = sorted({fact["device"] for fact in own})
  layouts = sorted({json.dumps(fact["layout"], sort_keys=True) for fact in own if "layout" in fact})
  trained = sorted({fact["commit"] for fact in own})
  found = {"config": config.to_dict(), "devices": devices, "layouts": layouts, "commit": _commit()}
  found["trained_at"] = trained
  return json.loads(json.dumps({**found, "versions": provenance(), "backend": jax.default_backend()}))


def _commit() -> str:
  """The commit of this checkout, with `+changes` if files differ from it; `unknown` outside a checkout."""
  here = pathlib.Path(__file__).resolve().parent
  try:
    ask = {"cwd": here, "capture_output": True, "text": True, "check": True, "timeout": 10}
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **ask).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **ask).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return "unknown"
  return commit + ("+changes" if changed else "")


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
  buffer = io.BytesIO()
  np.savez_compressed(buffer, allow_pickle=False, **arrays)
  return buffer.getvalue()
