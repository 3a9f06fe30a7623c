"""Trains what is missing: stages in order of ancestry, lanes in cohorts, resumable at any moment."""

import collections
import contextlib
import functools
import hashlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from finetune_wrappers.training import cohort as cohorts
from finetune_wrappers.training import hosts
from finetune_wrappers.training.checkpoints import Checkpoints
from finetune_wrappers.training.cohort_run import CohortRun
from finetune_wrappers.training.failures import Interrupted, LanesFailed
from finetune_wrappers.training.provenance import provenance
from finetune_wrappers.training.stages import RootStage, Stage, TrainStage, ancestors, describe, root_of, with_ancestors
from finetune_wrappers.training.store import Store
from finetune_wrappers.types import canonical_json

CHECKPOINT_SECONDS = 60.0

_LOCKED_SECONDS = 0.5  # until what other processes hold is asked for again
_MOST_LANES = 64  # of an accelerator
_SHARE_OF_MEMORY = 0.8  # the rest is for evaluation, and for what XLA needs beside the program


class Trainer:
  """Fills a store.

  Args:
    store: where stages are kept.
    build: root stage -> (arrays {"params": ...}, facts)
    model_of: facts of a root stage -> Flax module.
    layout: None calibrates; or a fixed Layout.
    lanes_per_program: most lanes in one program; 0 means one for each CPU device, and for each accelerator as many as
      its memory holds, up to 64.
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
    self._checkpoints = Checkpoints(store.root)
    self._build = build
    self._model_of = model_of
    self._layout = layout
    self._lanes_per_program = lanes_per_program
    self._most: dict[str, int] = {}  # lanes, by program
    self._failed: dict[str, TrainStage] = {}
    self._ahead: dict[str, int] = collections.defaultdict(int)  # lane-steps of each program that a run begins with
    self._progress = progress
    self._checkpoint_seconds = checkpoint_seconds
    self._stopping = stopping
    self._facts = facts or {}
    self._programs: dict[Any, cohorts.Cohort] = {}
    self._done = self._total = 0

  def run(self, stages: Sequence[Stage]) -> None:
    """Trains every stage and ancestor that the store does not have.

    Raises:
      Interrupted: if `stopping` says so; what was done is kept.
      LanesFailed: at the end, if some did not fit into memory; the others are trained.
    """
    missing = missing_stages(self._store, stages)
    self._total = sum(_steps(stage) for stage in missing)
    wanted = with_ancestors(stages)
    for stage in missing:
      if isinstance(stage, TrainStage):
        self._ahead[identity_of(stage)] += _steps(stage)
    while True:
      with contextlib.ExitStack() as held:
        (told,) = hosts.any_of(self._stopping())
        stopped, keys = hosts.agree(lambda held=held, told=told: self._next(wanted, held, told))
        if stopped:
          raise Interrupted(stopped)
        if not keys:
          break
        self._make([wanted[key] for key in keys])
        hosts.wait()
    hosts.on_first(self._tidy)
    if self._failed:
      blocked = [s for s in wanted.values() if s.key not in self._failed and self._is_blocked(s)]
      raise LanesFailed(list(self._failed.values()), blocked)

  def _next(self, wanted: dict[str, Stage], held: contextlib.ExitStack, told: bool) -> tuple[str, list[str]]:
    """(why to stop, or nothing; keys of the stages to make together, or none), with their locks held.

    What is finished leaves `wanted`, on the host that decides; `told` is whether any host was told to stop.
    """
    while True:
      for key in [key for key, stage in wanted.items() if self._store.has(stage)]:
        del wanted[key]
      left = [stage for stage in wanted.values() if not self._is_blocked(stage)]
      self._done = self._total - sum(map(_steps, left))
      if left and told:
        return f"stopped with {len(left)} stages left", []
      ready = [s for s in left if not isinstance(s, TrainStage) or s.parent.key not in wanted]
      roots = [s for s in ready if not isinstance(s, TrainStage)]
      programs = {s.key: identity_of(s) for s in ready if isinstance(s, TrainStage)}
      group = roots[:1] or [s for s in ready if programs[s.key] == programs[ready[0].key]]
      if not group:
        return "", []
      free = [s.key for s in self._lock_some(group, held) if not self._store.has(s)]
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

  def _lock_some(self, group: Sequence[Stage], held: contextlib.ExitStack) -> Sequence[Stage]:
    """At most a program's lanes that have come equally far, the farthest first; those no other process is at."""
    far = self._checkpoints.steps()
    size = self.lanes_of(group[0])
    ordered = sorted(group, key=lambda stage: -far.get(stage.key, 0))
    equal = [list(some) for _, some in itertools.groupby(ordered, lambda stage: far.get(stage.key, 0))]
    programs = [some[i : i + size] for some in equal for i in range(0, len(some), size)]
    for lanes in programs:
      if held.enter_context(self._store.lock([lane.key for lane in lanes])):
        return lanes
    return []

  def lanes_of(self, stage: Stage, root: tuple[Any, Any] | None = None) -> int:
    """How many of its kind make a program, at most.

    Args:
      stage: one of them.
      root: module and parameters of its root, where the store does not have it yet.
    """
    if not isinstance(stage, TrainStage):
      return 1
    identity = identity_of(stage)
    if identity not in self._most:
      self._most[identity] = self._lanes_per_program or jax.device_count() * self._lanes_of_a_device(stage, root)
    return self._most[identity]

  def _lanes_of_a_device(self, stage: TrainStage, root: tuple[Any, Any] | None) -> int:
    if jax.default_backend() == "cpu":
      return 1
    room = cohorts.device_memory()
    if room is None or jax.process_count() > 1:
      return _MOST_LANES
    if root is None:
      arrays, facts = self._store.load(root_of(stage))
      root = self._model_of(facts), arrays["params"]
    one = self._cohort(root[0], stage, cohorts.Layout(1, "map"), identity_of(stage))
    used = one.memory([root[1]], cohorts.lane_arrays([stage.lane]))
    return max(1, min(_MOST_LANES, int(_SHARE_OF_MEMORY * room / used)))

  def _make(self, stages: Sequence[Stage]) -> None:
    lanes = [stage for stage in stages if isinstance(stage, TrainStage)]
    if not lanes:
      for root in stages:
        self._make_root(root)
      return
    kept = hosts.together(lambda: self._checkpoints.load([lane.key for lane in lanes]))
    hosts.check_same({key: step for key, (step, _) in kept.items()}, "checkpoints")
    position = kept.get(lanes[0].key, (0, None))[0]
    lanes = [lane for lane in lanes if kept.get(lane.key, (0, None))[0] == position]  # a damaged one is behind
    try:
      self._train(lanes, position, [kept[lane.key][1] for lane in lanes if position])
      return
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
      if not cohorts.out_of_memory(error):
        raise
    self._make_room(lanes)  # not in the handler, which holds what filled the memory

  def _make_room(self, lanes: Sequence[TrainStage]) -> None:
    """After a device ran out of memory: half as many lanes a program from now on, or one lane less to train."""
    self._programs.clear()
    if len(lanes) > 1:
      self._most[identity_of(lanes[0])] = len(lanes) // 2
    else:
      self._failed[lanes[0].key] = lanes[0]

  def _make_root(self, stage: Any) -> None:
    self._progress(self._done, self._total, stage.label)
    arrays, facts = self._build(stage)
    self._store.save(stage, arrays, {**facts, **self._provenance()})

  def _provenance(self) -> dict[str, Any]:
    return {**provenance(), **self._facts}

  def _train(self, lanes: Sequence[TrainStage], position: int, kept: Sequence[Any]) -> None:
    """Trains lanes of one program that have come equally far, from what was kept of each."""
    stage = lanes[0]
    model = self._model_of(self._store.facts(root_of(stage)))
    distinct = {lane.parent.key: lane.parent for lane in lanes}
    parents = hosts.together(lambda: {key: self._store.load(one)[0]["params"] for key, one in distinct.items()})
    params = [parents[lane.parent.key] for lane in lanes]
    lane = cohorts.lane_arrays([stage.lane for stage in lanes])
    program, rates = self._program(model, stage, params, lane, position)
    run = CohortRun(program, [lane.key for lane in lanes], lane)
    run.begin(params, position, kept)
    self._done += position * len(lanes)
    self._advance_to_end(run, lanes)
    facts = {"layout": vars(program.layout), "lane_steps_per_second": rates, **self._provenance()}
    for done, arrays in zip(lanes, run.results(), strict=True):
      own = {"lanes": len(lanes), "diverged_step": int(arrays["diverged_step"])}
      self._store.save(done, arrays, {**facts, **own})
    hosts.on_first(lambda: self._checkpoints.tidy(self._store.has_key))

  def _advance_to_end(self, run: CohortRun, lanes: Sequence[TrainStage]) -> None:
    kinds = "+".join(dict.fromkeys(lane.kind for lane in lanes))
    steps = lanes[0].settings.steps
    saved = time.monotonic()
    for done in run.parts():
      self._done += done * len(lanes)
      self._progress(self._done, self._total, f"{kinds} {lanes[0].task.name}, {len(lanes)} lanes")
      old = hosts.is_first() and time.monotonic() - saved > self._checkpoint_seconds
      told, due = hosts.any_of(self._stopping(), old)
      if (told or due) and run.position < steps:
        self._checkpoints.save(run.lanes, run.position, run.checkpoint())
        saved = time.monotonic()
      if told and run.position < steps:
        raise Interrupted(f"stopped at step {run.position} of {steps}")

  def _program(self, model, stage: TrainStage, params, lane, position: int) -> tuple[cohorts.Cohort, dict]:
    """The compiled program for these lanes.

    Its layout is kept in the store, so that a resumed run repeats it; fewer lanes, such as the rest of a sweep, use the
    layout of more, and for more it is chosen anew.
    """
    identity = identity_of(stage)
    layout, rates = self._layout, {}
    if layout is None:
      name = layout_name(identity)
      kept = hosts.agree(lambda: self._store.recall(name))
      if kept is None or (kept["lanes"] < len(params) and not position):
        self._progress(self._done, self._total, "choosing a layout")
        layout, rates = cohorts.calibrate(
          lambda x: self._cohort(model, stage, x, identity), params, lane, stage.settings,
          lane_steps=self._ahead[identity],
        )  # fmt: skip
        chosen = {"layout": vars(layout), "lanes": len(params), "lane_steps_per_second": rates}
        kept = hosts.agree(lambda: self._settled(name, chosen))
      layout, rates = cohorts.Layout(**kept["layout"]), kept["lane_steps_per_second"]
    return self._cohort(model, stage, layout, identity), rates

  def _settled(self, name: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """What another process chose meanwhile for as many lanes, or else this, which is kept."""
    other = self._store.recall(name)
    if other is None or other["lanes"] < chosen["lanes"]:
      self._store.remember(name, chosen)
      return chosen
    return other

  def _cohort(self, model, stage: TrainStage, layout: cohorts.Layout, identity: str) -> cohorts.Cohort:
    cached = (identity, layout)
    if cached not in self._programs:
      task, settings = stage.program
      self._programs[cached] = cohorts.Cohort(model, task, settings, layout)
    return self._programs[cached]


@functools.lru_cache(maxsize=10_000)
def identity_of(stage: TrainStage) -> str:
  """16 hexadecimal digits for all stages that one program can train."""
  text = canonical_json(describe([*stage.program, root_of(stage).architecture]))
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def layout_name(identity: str) -> str:
  """Under which the store remembers the layout of a program on the devices at hand."""
  return f"layout-{identity}-{jax.device_count()}x{jax.default_backend()}"


def _steps(stage: Stage) -> int:
  return stage.settings.steps if isinstance(stage, TrainStage) else 0


def missing_stages(store: Store, stages: Sequence[Stage]) -> list[Stage]:
  """Stages and ancestors that are not finished, parents first, each once."""
  return [stage for stage in with_ancestors(stages).values() if not store.has(stage)]
