"""Runs a config: trains its missing stages, measures, writes rows, reports."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath
from ml_collections import ConfigDict

from configs.common import PRESETS
from experiments import compiled, results
from experiments.environment import use_all_cores
from experiments.measures import Measure, Measured
from experiments.models import Models
from experiments.plan import Plan, plans
from experiments.progress import Progress
from experiments.registry import registered
from experiments.schema import DATA
from finetune_wrappers.files import located, write_atomically
from finetune_wrappers.reporting.plots import save_figure
from finetune_wrappers.rules import one_of, shown
from finetune_wrappers.training import hosts
from finetune_wrappers.training.calibration import out_of_memory
from finetune_wrappers.training.disk import writing
from finetune_wrappers.training.failures import Interrupted, LanesFailed
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.loop import Trainer
from finetune_wrappers.training.provenance import provenance
from finetune_wrappers.training.stages import Stage, with_ancestors
from finetune_wrappers.training.store import DamagedStage, Store
from finetune_wrappers.types import InputError

__all__ = ["Interrupted", "LanesFailed", "Ran", "plan_of", "report", "run"]
_MOST_DAMAGED = 5  # stages at once, or times, that a run trains again by itself
_WAIT_SECONDS = 0.2
_SMALLER = "smaller values of batch_size, eval_size, lanes_per_program or of the model's sizes"


class Ran(NamedTuple):
  """What a run left.

  Attributes:
    folder: `workdir/<name>` with rows.jsonl, summary.md, figure.png and config.json.
    short: the short table to print; empty on all hosts but the first.
    diverged: models that do not count, whose loss or weights became non-finite.
  """

  folder: epath.Path
  short: str
  diverged: list[str]


def run(config: ConfigDict, workdir: str, stopping: Callable[[], bool] = lambda: False) -> Ran:
  """Everything from a config to its folder.

  Args:
    config: from a module of `configs`.
    workdir: all experiments share its stages.
    stopping: called every few seconds; True saves and raises Interrupted.

  Returns:
    Where the results are, and what to print.

  Raises:
    InputError: for anything that the user can fix; finished stages are kept. Before anything is trained: if the
      folder holds rows of another config.
    Interrupted: if `stopping` returns True; likewise.
  """
  use_all_cores()
  planned = plan_of(config, workdir)
  results.check_same(located(workdir) / config.name, config)
  with enough_memory(), compiled.reused(config.compilation_cache, workdir):
    return _run_again(config, planned, Store(workdir), stopping)


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
  """Turns out-of-memory errors into an InputError."""
  try:
    yield
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    if not out_of_memory(error):
      raise
    raise InputError(f"memory: too little for this config; use {_SMALLER}") from error


@dataclasses.dataclass(frozen=True)
class Planned:
  """What a config asks for.

  Attributes:
    plans: one a task.
    measures: in the config's order.
    stages: of all measures; a stage that several need is in it several times.
    layout: of lanes over devices; None where it is chosen by calibration.
  """

  plans: list[Plan]
  measures: list[Measure]
  stages: list[Stage]
  layout: Layout | None


def plan_of(config: ConfigDict, workdir: str | None = None) -> Planned:
  """Plans a config and checks all of it: nothing is compiled or written, and of data only what names it is read.

  Args:
    config: from a module of `configs`.
    workdir: where what tasks need beside models is kept; without it nothing can be trained.

  Raises:
    InputError: one line with the key and the allowed values.
  """
  found = plans(config, located(workdir) / DATA if workdir else None)
  measures = [registered("experiments.measures", "MEASURE")[name] for name in config.measures]
  stages = [stage for plan in found for measure in measures for stage in measure.stages(plan)]
  layout = Layout(config.layout.devices, config.layout.inner) if config.layout.devices else None
  return Planned(found, measures, stages, layout)


def _run_again(config: ConfigDict, planned: Planned, store: Store, stopping) -> Ran:
  """Runs until no stage turns out to be damaged, a few times at most."""
  for left in reversed(range(_MOST_DAMAGED + 1)):
    try:
      return _run(config, planned, store, stopping)
    except DamagedStage:
      # Without a lock this could move a stage that another process just finished.
      if not left or not store.is_local or jax.process_count() > 1:
        raise
      _set_aside(planned.stages, store)
  raise AssertionError("the last try returns or raises")


def _set_aside(stages: Sequence[Stage], store: Store) -> None:
  """Sets all damaged stages and ancestors aside.

  Raises:
    InputError: if there are too many; then nothing is moved.
  """
  wanted = with_ancestors(stages)
  damaged = {key: error for key, stage in wanted.items() if (error := store.damage(stage))}
  if len(damaged) > _MOST_DAMAGED:
    first = next(iter(damaged.values()))
    raise InputError(f"{first.what}, and {len(damaged) - 1} others are; look at the disk, then move them away")
  for key, error in damaged.items():
    if folder := store.set_aside(wanted[key]):
      text = f"{error.what}; it is now {folder}, and is trained again (what was trained from it stays)"
      print(f"warning: {text}", file=sys.stderr)


def _run(config: ConfigDict, planned: Planned, store: Store, stopping) -> Ran:
  folder = store.root / config.name
  with Progress() as progress:
    prepare(planned, progress, stopping)
    trainer_of(config, planned, store, progress=progress, stopping=stopping).run(planned.stages)
    measured = _measure(config, planned, store, progress, stopping)
  if not hosts.is_first():
    return Ran(folder, "", [])
  facts = _facts(config, store, planned.stages)
  with _alone(store, config.name):
    results.check_same(folder, config)  # another run may have written it meanwhile
    with writing(folder):
      results.write(folder, measured, facts)
    return Ran(folder, report(folder), sorted(set(facts["diverged"])))


def prepare(planned: Planned, progress: Progress, stopping: Callable[[], bool] = lambda: False) -> None:
  """Makes the data that plans need, on one host while the others wait; errors and Interrupted as `run`."""

  def show(done: int, total: int, text: str) -> None:
    if stopping():
      raise Interrupted("stopped while making data; what is finished is kept")
    progress(done, total, text)

  def make() -> None:
    for plan in planned.plans:
      plan.prepare(show)

  progress.count("story")
  hosts.agree(make)
  progress.count("step")


@contextlib.contextmanager
def _alone(store: Store, name: str) -> Iterator[None]:
  """Waits until no other run, such as a job of the same array, writes that folder."""
  while True:
    with store.lock([f"folder-{name}"]) as held:
      if held:
        yield
        return
    time.sleep(_WAIT_SECONDS)


def report(folder: epath.Path) -> str:
  """Makes figures and summary.md from the folder's rows; trains and measures nothing.

  Args:
    folder: that a run left.

  Returns:
    The short table to print.

  Raises:
    InputError: for files that are missing, damaged or do not fit each other, and a folder that cannot be written.
  """
  found = results.read(folder)
  reports = registered("experiments.reports", "REPORT")
  name = found.facts["config"].get("report")
  one_of(*reports).check(f"{folder}: report", name)
  try:
    made = reports[name].make(found.rows, found.arrays, found.facts)
    text, short = made.markdown(found.facts), made.printed(found.facts)
    preset = found.facts["config"]["preset"]
    mark = "" if PRESETS[preset] else f"{preset}: shows nothing"
  except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
    if found.checked or isinstance(error, InputError):
      raise
    why = f"{type(error).__name__}: {shown(str(error))}"
    raise InputError(f"{folder}: its files do not fit report {name!r} ({why}); run its command again") from error
  with writing(folder):
    for name, figure in made.figures.items():
      save_figure(figure, folder / f"{name}.png", mark=mark)
    write_atomically(folder / "summary.md", text.encode())
  return short


def trainer_of(config: ConfigDict, planned: Planned, store: Store, **options) -> Trainer:
  """The trainer of a config; options are the Trainer's own."""
  return Trainer(
    store,
    build=planned.plans[0].build,
    model_of=planned.plans[0].restore,
    layout=planned.layout,
    lanes_per_program=config.lanes_per_program,
    checkpoint_seconds=config.checkpoint_seconds,
    facts={"commit": _commit()},
    **options,
  )


def _measure(config: ConfigDict, planned: Planned, store: Store, progress: Progress, stopping) -> Measured:
  named = list(zip(config.measures, planned.measures, strict=True))
  parts = [(plan, name, measure, len(measure.stages(plan))) for plan in planned.plans for name, measure in named]
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
  """Shows progress as a model is loaded; a measure may load one twice."""
  if any(hosts.any_of(stopping())):
    raise Interrupted("stopped while measuring; every model is trained")
  show(next(numbers, None))


def _facts(config: ConfigDict, store: Store, stages) -> dict[str, Any]:
  """Provenance of the numbers: config, devices, layouts, versions, commits."""
  own = [store.facts(stage) for stage in stages]
  parts = [part for fact in own for part in (fact, *fact.get("earlier", ()))]
  devices = sorted({part["device"] for part in parts})
  layouts = sorted({json.dumps(part["layout"], sort_keys=True) for part in parts if "layout" in part})
  found = {"config": config.to_dict(), "devices": devices, "layouts": layouts, "commit": _commit()}
  found["precisions"] = sorted({part.get("precision", "unrecorded") for part in parts if "layout" in part})
  found["trained_at"] = sorted({part["commit"] for part in parts})
  found["diverged"] = [s.label for s, fact in zip(stages, own, strict=True) if fact.get("diverged_step", -1) >= 0]
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
