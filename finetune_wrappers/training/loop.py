"""Trains what is missing: stages in order of ancestry, lanes in cohorts, resumable at any moment."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from finetune_wrappers.training import cohort as cohorts
from finetune_wrappers.training.stages import RootStage, Stage, TrainStage, ancestors, root_of
from finetune_wrappers.training.step import METRICS
from finetune_wrappers.training.store import Store
from finetune_wrappers.types import InputError

CHECKPOINT_SECONDS = 60.0
_PART_SECONDS = 5.0  # how long a part of a run takes, and so about how long it goes on when it is told to stop


class Interrupted(Exception):
  """Training was told to stop, and saved what it had."""


class Trainer:
  """Fills a store.

  Args:
    store: where stages are kept.
    build: root stage -> (arrays {"params": ...}, facts)
    model_of: facts of a root stage -> Flax module.
    layout: None calibrates; or a fixed Layout.
    lanes_per_program: most lanes in one program; 0 means one for each CPU device, 64 for each accelerator.
    progress: called with (lane-steps done, lane-steps in all, text) as training goes.
    checkpoint_seconds: time between checkpoints of a running cohort.
    stopping: asked every few seconds; training saves and raises Interrupted when it says yes.
    facts: JSON values to keep with every stage beside device and versions, such as the commit.
  """

  def __init__(
    self,
    store: Store,
    *,
    build: Callable[[RootStage], tuple[Any, dict]],
    model_of: Callable[[dict], Any],
    layout: cohorts.Layout | None = None,
    lanes_per_program: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    stopping: Callable[[], bool] = lambda: False,
    facts: dict[str, Any] | None = None,
  ):
    self._store = store
    self._build = build
    self._model_of = model_of
    self._layout = layout
    per_device = 1 if jax.default_backend() == "cpu" else 64
    self._lanes_per_program = lanes_per_program or per_device * jax.local_device_count()
    self._progress = progress
    self._checkpoint_seconds = checkpoint_seconds
    self._stopping = stopping
    self._facts = facts or {}
    self._programs: dict[Any, cohorts.Cohort] = {}
    self._done = self._total = 0

  def run(self, stages: Sequence[Stage]) -> None:
    """Trains every stage and ancestor that the store does not have."""
    missing = missing_stages(self._store, stages)
    self._done, self._total = 0, sum(s.settings.steps for s in missing if isinstance(s, TrainStage))
    while missing:
      if self._stopping():
        raise Interrupted(f"stopped with {len(missing)} stages left")
      ready = [s for s in missing if not isinstance(s, TrainStage) or self._store.has(s.parent)]
      roots = [s for s in ready if not isinstance(s, TrainStage)]
      if roots:
        self._make_root(roots[0])
      else:
        self._train_group(_same_program([s for s in ready if isinstance(s, TrainStage)]))
      missing = [s for s in missing if not self._store.has(s)]

  def _make_root(self, stage: RootStage) -> None:
    self._progress(self._done, self._total, stage.label)
    with self._store.lock(stage.key):
      if not self._store.has(stage):
        arrays, facts = self._build(stage)
        self._store.save(stage, arrays, {**facts, **self._provenance()})

  def _provenance(self) -> dict[str, Any]:
    return {**provenance(), **self._facts}

  def _train_group(self, group: list[TrainStage]) -> None:
    """All ready lanes of one program, a few at a time in an order that a restart repeats."""
    size = self._lanes_per_program
    lane_steps = sum(lane.settings.steps for lane in group)
    for begin in range(0, len(group), size):
      lanes = group[begin : begin + size]
      key = hashlib.sha256(" ".join(lane.key for lane in lanes).encode()).hexdigest()[:16]
      with self._store.lock(key):
        if all(self._store.has(lane) for lane in lanes):
          self._done += sum(lane.settings.steps for lane in lanes)
        else:
          self._train(lanes, key, lane_steps)

  def _train(self, lanes: list[TrainStage], key: str, lane_steps: int) -> None:
    stage = lanes[0]
    model = self._model_of(self._store.load(root_of(stage))[1])
    params = [self._store.load(lane.parent)[0]["params"] for lane in lanes]
    lane = cohorts.lane_arrays([stage.lane for stage in lanes])
    kept = self._store.load_progress(key)
    program, rates = self._program(model, stage, params, lane, lane_steps)
    curves = self._advance_to_end(program, lanes, params, lane, key, kept)
    facts = {"layout": vars(program.layout), "lane_steps_per_second": rates, **self._provenance()}
    for index, done in enumerate(lanes):
      arrays = {name: value[index] for name, value in curves.items() if name != "params"}
      arrays["params"] = jax.tree.map(lambda x, i=index: x[i], curves["params"])
      self._store.save(done, {**arrays, "steps": curves["steps"]}, facts)
    self._store.drop_progress(key)

  def _advance_to_end(self, program, lanes, params, lane, key: str, kept) -> dict[str, Any]:
    """Runs a cohort from its last checkpoint, or from nothing; returns parameters and curves by lane."""
    settings, number = lanes[0].settings, len(lanes)
    kinds = "+".join(dict.fromkeys(lane.kind for lane in lanes))
    laid = program.lay_out(lane)
    state = program.init(params, lane)
    curve: list[np.ndarray] = []
    losses: list[np.ndarray] = []
    position = 0
    if kept:
      position, arrays = kept
      state = program.lay_out(_like(state, arrays["state"], program, number))
      curve, losses = list(arrays["metrics"]), list(arrays["losses"])
      self._done += position * number
    saved, steps = time.monotonic(), 1  # the first part has one step: it compiles
    while len(curve) < len(settings.eval_steps):
      begun, stop = time.monotonic(), min(settings.eval_steps[len(curve)], position + steps)
      asked = stop == settings.eval_steps[len(curve)]
      since = settings.eval_steps[len(curve) - 1] if curve else 0
      state, measured = program.advance(state, laid, position, stop, since if asked else None)
      measured = program.gather(measured, number)
      if asked:
        curve.append(measured[0])
        losses.append(measured[1])
      steps = _next_part(steps, stop - position, time.monotonic() - begun)
      self._done += (stop - position) * number
      position = stop
      self._progress(self._done, self._total, f"{kinds} {lanes[0].task.name}, {number} lanes")
      told = self._stopping()
      if (told or time.monotonic() - saved > self._checkpoint_seconds) and position < settings.steps:
        host = program.gather(state, number)
        curves = {"metrics": _stacked(curve, (number, len(METRICS))), "losses": _stacked(losses, (number,))}
        self._store.save_progress(key, position, {"state": jax.tree.leaves(host), **curves})
        saved = time.monotonic()
      if told and position < settings.steps:
        raise Interrupted(f"stopped at step {position} of {settings.steps}")
    final = program.gather(state, number)
    return {
      "params": final.params,
      "diverged_step": final.diverged_step,
      "metrics": np.stack(curve, axis=1),
      "losses": np.stack(losses, axis=1),
      "steps": np.array(settings.eval_steps),
    }

  def _program(self, model, stage: TrainStage, params, lane, lane_steps: int) -> tuple[cohorts.Cohort, dict]:
    """The compiled program for these lanes.

    Its layout is chosen once and kept in the store, so that a resumed run repeats it; fewer lanes, such as the rest of
    a sweep, use the layout of more.
    """
    identity = hashlib.sha256(repr((model, stage.program)).encode()).hexdigest()[:16]
    rates = {}
    layout = self._layout
    if layout is None:
      name = f"layout-{identity}-{jax.local_device_count()}x{jax.default_backend()}"
      kept = self._store.recall(name)
      if kept is None or kept["lanes"] < len(params):
        self._progress(self._done, self._total, "choosing a layout")
        layout, rates = cohorts.calibrate(
          lambda x: self._cohort(model, stage, x, identity), params, lane, lane_steps=lane_steps
        )
        kept = {"layout": vars(layout), "lanes": len(params), "lane_steps_per_second": rates}
        self._store.remember(name, kept)
      else:
        layout, rates = cohorts.Layout(**kept["layout"]), kept["lane_steps_per_second"]
    return self._cohort(model, stage, layout, identity), rates

  def _cohort(self, model, stage: TrainStage, layout: cohorts.Layout, identity: str) -> cohorts.Cohort:
    cached = (identity, layout)
    if cached not in self._programs:
      task, settings = stage.program
      self._programs[cached] = cohorts.Cohort(model, task, settings, layout)
    return self._programs[cached]


def missing_stages(store: Store, stages: Sequence[Stage]) -> list[Stage]:
  """Stages and ancestors that are not finished, parents first, each once."""
  wanted = {s.key: s for stage in stages for s in ancestors(stage)}
  return [stage for stage in wanted.values() if not store.has(stage)]


def provenance() -> dict[str, str]:
  """Device and versions, to be kept with every stage."""
  return {
    "device": jax.local_devices()[0].device_kind,
    "processor": _processor(),
    "cores": str(os.cpu_count()),
    "python": platform.python_version(),
    **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")},
  }


def _processor() -> str:
  """Its name where the system tells one: `cpu` alone says little beside a speed."""
  with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
    for line in lines:
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()


def _next_part(steps: int, done: int, seconds: float) -> int:
  """Steps of the next part, grown step by step to what takes `_PART_SECONDS`."""
  return max(1, min(4 * steps, int(_PART_SECONDS * max(done, 1) / max(seconds, 1e-3))))


def _stacked(rows: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
  """[E, ...], also for no rows."""
  return np.stack(rows) if rows else np.zeros((0, *shape), np.float32)


def _same_program(stages: list[TrainStage]) -> list[TrainStage]:
  first = stages[0]
  shapes = root_of(first).architecture
  return [s for s in stages if s.program == first.program and root_of(s).architecture == shapes]


def _like(state, leaves: Sequence[np.ndarray], program, number: int):
  """Saved leaves in the structure of a fresh state."""
  fresh = program.gather(state, number)
  structure = jax.tree.structure(fresh)
  shapes = [leaf.shape for leaf in jax.tree.leaves(fresh)]
  if [leaf.shape for leaf in leaves] != shapes:
    raise InputError("workdir: a cohort's checkpoint has other shapes; delete workdir/cohorts to start it again")
  return structure.unflatten(leaves)
