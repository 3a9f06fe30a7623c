"""Trains what is missing: stages in order of ancestry, lanes in cohorts, resumable at any moment."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from finetune_wrappers.models.model import Model
from finetune_wrappers.training import calibration, hosts
from finetune_wrappers.training.checkpoints import Checkpoints, Kept
from finetune_wrappers.training.cohort import lane_arrays
from finetune_wrappers.training.cohort_run import CohortRun
from finetune_wrappers.training.failures import Interrupted, LanesFailed
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.programs import Programs, Roots
from finetune_wrappers.training.provenance import Part, parts_with, precision_of, provenance
from finetune_wrappers.training.schedule import Work, all_works, next_group, steps_of, works_of
from finetune_wrappers.training.stages import (
  RootStage,
  Stage,
  TrainStage,
  ancestors,
  model_after,
  root_of,
  with_ancestors,
)
from finetune_wrappers.training.store import Store
from finetune_wrappers.types import Params

CHECKPOINT_SECONDS = 60.0

_LOCKED_SECONDS = 0.5  # until what other processes hold is asked for again


class Trainer:
  """Fills a store.

  Args:
    store: where stages are kept.
    build: root stage -> (arrays {"params": ...}, facts)
    model_of: facts of a root stage -> its model.
    layout: None calibrates; or a fixed Layout.
    lanes_per_program: most lanes in one program; 0 means one for each CPU device, and for each accelerator as many as
      its memory holds, up to 64.
    progress: called with (lane-steps done, lane-steps in all, text) as training goes.
    checkpoint_seconds: time between checkpoints of a running cohort.
    stopping: asked every few seconds; training saves and raises Interrupted when it says yes.
    facts: JSON values to keep with every stage beside device and versions, such as the commit.

  Attributes:
    programs: its compiled programs.
  """

  def __init__(
    self,
    store: Store,
    *,
    build: Callable[[RootStage], tuple[Any, dict]],
    model_of: Callable[[dict], Model],
    layout: Layout | None = None,
    lanes_per_program: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    stopping: Callable[[], bool] = lambda: False,
    facts: dict[str, Any] | None = None,
  ):
    self._store = store
    self._checkpoints = Checkpoints(store.root)
    self._build = build
    self._model_of = model_of
    self.programs = Programs(store, layout, lanes_per_program)
    self._failed: dict[str, TrainStage] = {}
    self._models: dict[str, Model] = {}  # of roots, by key
    self._progress = progress
    self._checkpoint_seconds = checkpoint_seconds
    self._stopping = stopping
    self._facts = facts or {}
    self._done = self._total = 0

  def plan(self, stages: Sequence[Stage], roots: Roots) -> list[Work]:
    """What `run` would make, in its order, if no other process worked at the same stages and all fitted into memory.

    Args:
      stages: wanted, with their ancestors.
      roots: models and parameters of roots, which the store may not have yet.
    """
    missing = missing_stages(self._store, stages)
    return all_works(missing, self._checkpoints.steps(), lambda lane: self.programs.lanes_of(lane, roots))

  def run(self, stages: Sequence[Stage]) -> None:
    """Trains every stage and ancestor that the store does not have.

    Raises:
      Interrupted: if `stopping` says so; what was done is kept.
      LanesFailed: at the end, if some did not fit into memory; the others are trained.
    """
    missing = missing_stages(self._store, stages)
    self._total = sum(map(steps_of, missing))
    wanted = with_ancestors(stages)
    self.programs.expect(missing)
    while True:
      with contextlib.ExitStack() as held:
        (told,) = hosts.any_of(self._stopping())
        stopped, keys, self._done = hosts.agree(
          lambda held=held, told=told: (*self._next(wanted, held, told), self._done)
        )
        if stopped:
          raise Interrupted(stopped)
        if not keys:
          break
        self._make([wanted[key] for key in keys])
        hosts.wait()
    hosts.on_first(self._tidy)
    if self._failed:
      blocked = [s for s in wanted.values() if s.key not in self._failed and self._is_blocked(s)]
      raise LanesFailed(list(self._failed.values()), blocked=blocked)

  def _next(self, wanted: dict[str, Stage], held: contextlib.ExitStack, told: bool) -> tuple[str, list[str]]:
    """(why to stop, or nothing; keys of the stages to make together, or none), with their locks held.

    What is finished leaves `wanted`, on the host that decides; `told` is whether any host was told to stop.
    """
    while True:
      for key in [key for key, stage in wanted.items() if self._store.has(stage)]:
        del wanted[key]
      left = [stage for stage in wanted.values() if not self._is_blocked(stage)]
      self._done = self._total - sum(map(steps_of, left))
      if left and told:
        return self._stopped(), []
      group = next_group(left, wanted)
      if not group:
        return "", []
      works = works_of(group, self._checkpoints.steps(), self.programs.lanes_of(group[0], self._root))
      free = [s.key for s in self._lock_one(works, held) if not self._store.has(s)]
      if free:
        return "", free
      held.close()
      time.sleep(_LOCKED_SECONDS)  # other processes are at all of them
      told = self._stopping()

  def _tidy(self) -> None:
    self._checkpoints.tidy(self._store.has_key)
    self._store.tidy()

  def _is_blocked(self, stage: Stage) -> bool:
    return any(s.key in self._failed for s in ancestors(stage))

  def _lock_one(self, works: Sequence[Work], held: contextlib.ExitStack) -> Sequence[Stage]:
    """The stages of the first work that no other process is at."""
    for work in works:
      if held.enter_context(self._store.lock([stage.key for stage in work.stages])):
        return work.stages
    return []

  def _root(self, stage: RootStage) -> tuple[Model, Params]:
    arrays, facts = self._store.load(stage)
    return self._model_of(facts), arrays["params"]

  def _make(self, stages: Sequence[Stage]) -> None:
    lanes = [stage for stage in stages if isinstance(stage, TrainStage)]
    if not lanes:
      for root in stages:
        self._make_root(root)
      return
    kept = hosts.together(lambda: self._checkpoints.load([lane.key for lane in lanes]))
    hosts.check_same({key: own.step for key, own in kept.items()}, "checkpoints")
    found = [kept.get(lane.key, Kept(0, None, [])) for lane in lanes]
    model = self._model(lanes[0])
    together = [
      (lane, own)
      for lane, own in zip(lanes, found, strict=True)
      if own.step == found[0].step and self._model(lane) == model  # a damaged one is behind; of another model, apart
    ]
    lanes = [lane for lane, _ in together]
    try:
      self._train(lanes, [own for _, own in together], model)
      return
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
      if not calibration.out_of_memory(error):
        raise
    if not self.programs.shrink(lanes):  # not in the handler, which holds what filled the memory
      self._failed[lanes[0].key] = lanes[0]

  def _make_root(self, stage: Any) -> None:
    self._progress(self._done, self._total, stage.label)
    arrays, facts = self._build(stage)
    self._store.save(stage, arrays, {**facts, **self._provenance()})

  def _provenance(self) -> dict[str, Any]:
    return {**provenance(), **self._facts}

  def _model(self, stage: TrainStage) -> Model:
    """That a stage starts from; a root's is made once, as a model may be equal to nothing but itself."""
    root = root_of(stage)
    if root.key not in self._models:
      self._models[root.key] = self._model_of(self._store.facts(root))
    return model_after(stage.parent, self._models[root.key])

  def _train(self, lanes: Sequence[TrainStage], kept: Sequence[Kept], model: Model) -> None:
    """Trains lanes of one program and model that have come equally far, from what was kept of each."""
    stage, position = lanes[0], kept[0].step
    distinct = {lane.parent.key: lane.parent for lane in lanes}
    parents = hosts.together(lambda: {key: self._store.load(one)[0]["params"] for key, one in distinct.items()})
    params = [parents[lane.parent.key] for lane in lanes]
    lane = lane_arrays([stage.lane for stage in lanes])
    program, rates = self.programs.cohort(
      model, stage, params, lane, position, lambda: self._progress(self._done, self._total, "choosing a layout")
    )
    run = CohortRun(program, [lane.key for lane in lanes], lane)
    run.begin(params, position, [own.arrays for own in kept if position])
    self._done += position * len(lanes)
    now = {"layout": vars(program.layout), "precision": precision_of(model), **self._provenance()}
    parts = {lane.key: parts_with(own.parts, position, now) for lane, own in zip(lanes, kept, strict=True)}
    self._advance_to_end(run, lanes, parts)
    facts = {**now, "lane_steps_per_second": rates}
    for done, arrays in zip(lanes, run.results(), strict=True):
      own: dict[str, Any] = {"lanes": len(lanes), "diverged_step": int(arrays["diverged_step"])}
      if earlier := parts[done.key][:-1]:
        own["earlier"] = earlier
      self._store.save(done, arrays, {**facts, **own})
    hosts.on_first(lambda: self._checkpoints.tidy(self._store.has_key))

  def _advance_to_end(self, run: CohortRun, lanes: Sequence[TrainStage], parts: dict[str, list[Part]]) -> None:
    kinds = "+".join(dict.fromkeys(lane.kind for lane in lanes))
    steps = steps_of(lanes[0])
    saved = time.monotonic()
    for done in run.parts():
      self._done += done * len(lanes)
      self._progress(self._done, self._total, f"{kinds} {lanes[0].task.name}, {len(lanes)} lanes")
      old = hosts.is_first() and time.monotonic() - saved > self._checkpoint_seconds
      told, due = hosts.any_of(self._stopping(), old)
      if (told or due) and run.position < steps:
        self._checkpoints.save(run.lanes, run.position, run.checkpoint(), parts)
        saved = time.monotonic()
      if told and run.position < steps:
        raise Interrupted(self._stopped())

  def _stopped(self) -> str:
    """In the numbers of the progress bar."""
    return f"stopped with {self._done} of {self._total} steps of all runs done"


def missing_stages(store: Store, stages: Sequence[Stage]) -> list[Stage]:
  """Stages and ancestors that are not finished, parents first, each once."""
  return [stage for stage in with_ancestors(stages).values() if not store.has(stage)]
