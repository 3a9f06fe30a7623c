"""What a config would train, how much that is and about how long it takes: `--dry_run`."""

import collections
import contextlib
import dataclasses
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from experiments import runner
from experiments.plan import Plan
from finetune_wrappers.training import cohort as cohorts
from finetune_wrappers.training import loop, losses
from finetune_wrappers.training.checkpoints import Checkpoints
from finetune_wrappers.training.stages import RootStage, Stage, TrainStage, ancestors, root_of, with_ancestors
from finetune_wrappers.training.store import Store

_SECONDS = 3.0  # of training that a program is timed for


@dataclasses.dataclass(frozen=True)
class Speed:
  """What was measured of a program.

  Attributes:
    layout: of its lanes.
    flops: of one lane's step, loss and gradient.
    memory: bytes on each device.
    kept: bytes a lane leaves on disk.
    compile_seconds: once for each number of lanes.
    step_seconds: of all lanes.
    eval_seconds: likewise.
    save_seconds: of a lane.
  """

  layout: cohorts.Layout
  flops: float
  memory: int
  kept: int
  compile_seconds: float
  step_seconds: float
  eval_seconds: float
  save_seconds: float


@dataclasses.dataclass(frozen=True)
class Group:
  """Lanes that train after one another's parents, as programs of one kind.

  Attributes:
    lanes: stages that are missing.
    lane_steps: of all of them, less what checkpoints have.
    size: lanes a program.
    compilations: how many this group is the first to need.
    speed: of a program of `size` lanes.
  """

  lanes: Sequence[TrainStage]
  lane_steps: int
  size: int
  compilations: int
  speed: Speed

  @property
  def seconds(self) -> float:
    """About how long training them takes, compilation included."""
    settings = self.lanes[0].settings
    full, rest = divmod(len(self.lanes), self.size)
    speed, layout = self.speed, self.speed.layout
    whole = settings.steps * speed.step_seconds + len(settings.eval_steps) * speed.eval_seconds
    programs = full + lanes_a_device(layout, rest) / lanes_a_device(layout, self.size)
    left = self.lane_steps / (settings.steps * len(self.lanes))
    compiled = speed.compile_seconds * self.compilations
    return compiled + programs * whole * left + len(self.lanes) * speed.save_seconds


def lanes_a_device(layout: cohorts.Layout, lanes: int) -> int:
  """How many of a program's lanes each device has, padding among them: programs that agree in it compile once."""
  return lanes if layout.inner == "data" else -(-lanes // layout.devices)


def describe(config: ConfigDict, workdir: str) -> str:
  """The plan as text; trains nothing and leaves no stage in the workdir.

  Models that are missing at the root of a chain are made, since their shapes are needed, and thrown away.

  Raises:
    InputError: as the run itself would; and for a damaged stage, which the run would train again.
  """
  runner.use_all_cores()
  planned = runner.plan_of(config)
  with runner.enough_memory(), _store(workdir) as store, tempfile.TemporaryDirectory() as scratch:
    wanted = with_ancestors(planned.stages)
    missing = loop.missing_stages(store, planned.stages)
    made = [stage for stage in missing if not isinstance(stage, TrainStage)]
    roots = Roots(store, planned.plans[0])
    for root in made:
      roots(root)
    trainer = runner.trainer_of(config, planned, store)
    meter = Meter(store, Store(scratch), roots, planned.layout, missing)
    groups = []
    for lanes in _groups(missing):
      size = trainer.lanes_of(lanes[0], roots(root_of(lanes[0])))
      groups.append(meter.group(lanes, min(size, len(lanes))))
    seconds = sum(group.seconds for group in groups)
  return _text(config.name, list(wanted.values()), made, groups, seconds + roots.seconds)


@contextlib.contextmanager
def _store(workdir: str) -> Iterator[Store]:
  """The workdir's; or an empty one, where there is none yet."""
  if (epath.Path(workdir) / "stages").exists():
    yield Store(workdir)
    return
  with tempfile.TemporaryDirectory() as empty:
    yield Store(empty)


class Roots:
  """Root stages' arrays and modules, from the store or made."""

  def __init__(self, store: Store, plan: Plan):
    self._store, self._plan = store, plan
    self._made: dict[str, tuple[Any, dict]] = {}
    self.seconds = 0.0

  def __call__(self, stage: RootStage) -> tuple[Any, Any]:
    """(module, parameters)."""
    if self._store.has(stage):
      arrays, facts = self._store.load(stage)
    else:
      begun = time.perf_counter()
      arrays, facts = self._made.get(stage.key) or self._made.setdefault(stage.key, self._plan.build(stage))
      self.seconds += time.perf_counter() - begun
    return self._plan.restore(facts), arrays["params"]


def _groups(missing: Sequence[Stage]) -> list[list[TrainStage]]:
  """Lanes of one program that become ready together: equally many ancestors."""
  found: dict[Any, list[TrainStage]] = {}
  for stage in missing:
    if isinstance(stage, TrainStage):
      found.setdefault((len(ancestors(stage)), loop.identity_of(stage)), []).append(stage)
  return [found[key] for key in sorted(found)]


class Meter:
  """Times programs for a moment, each once.

  Args:
    store: of the workdir.
    scratch: to time a save in.
    roots: what training begins with.
    layout: of every program; None takes what a run before this chose, or else the first candidate.
    missing: everything that will be trained.
  """

  def __init__(self, store: Store, scratch: Store, roots: Roots, layout: cohorts.Layout | None, missing):
    self._store, self._scratch, self._roots, self._layout = store, scratch, roots, layout
    self._far = Checkpoints(store.root).steps()
    self._speeds: dict[tuple[str, int], Speed] = {}
    self._layouts: dict[str, cohorts.Layout] = {}
    self._compiled: set[tuple[str, cohorts.Layout, int]] = set()
    self._ahead: dict[str, int] = collections.defaultdict(int)
    for stage in missing:
      if isinstance(stage, TrainStage):
        self._ahead[loop.identity_of(stage)] += stage.settings.steps

  def group(self, lanes: Sequence[TrainStage], size: int) -> Group:
    """What these lanes cost, in programs of that size."""
    identity = loop.identity_of(lanes[0])
    kept = self._store.recall(loop.layout_name(identity)) if self._layout is None else None
    known = cohorts.Layout(**kept["layout"]) if kept and kept["lanes"] >= size else self._layout
    known = known or self._layouts.get(identity)
    if (identity, size) not in self._speeds:
      self._speeds[identity, size] = self._measure(lanes, size, known)
    speed = self._speeds[identity, size]
    sizes = {size, len(lanes) % size or size} if len(lanes) > size else {len(lanes)}
    shapes = {(identity, speed.layout, lanes_a_device(speed.layout, number)) for number in sizes} - self._compiled
    self._compiled |= shapes
    rate = size / speed.step_seconds
    chooses = not known and cohorts.worth_calibrating(self._ahead[identity], rate, speed.compile_seconds)
    more = len(cohorts.candidate_layouts(size, lanes[0].settings)) - 1 if chooses else 0
    self._layouts[identity] = speed.layout
    return Group(lanes, sum(map(self._left, lanes)), size, len(shapes) + more, speed)

  def _left(self, stage: TrainStage) -> int:
    return stage.settings.steps - self._far.get(stage.key, 0)

  def _measure(self, lanes: Sequence[TrainStage], size: int, layout: cohorts.Layout | None) -> Speed:
    stage = lanes[0]
    task, settings = stage.program
    model, params = self._roots(root_of(stage))
    layout = layout or cohorts.candidate_layouts(size, settings)[0]
    program = cohorts.Cohort(model, task, settings, layout)
    lane = cohorts.lane_arrays([s.lane for s in lanes[:size]])
    timed = cohorts.timed(program, [params] * size, lane, _SECONDS)
    state = program.gather(program.init([params] * size, lane), size)
    arrays = {"params": jax.tree.map(lambda x: x[0], state.params)}
    begun = time.perf_counter()
    self._scratch.save(stage, arrays, {})
    save_seconds = time.perf_counter() - begun
    return Speed(
      layout,
      flops=flops_of(stage, model, params),
      memory=program.memory([params] * size, lane),
      kept=sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)),
      save_seconds=save_seconds,
      **timed,
    )


def flops_of(stage: TrainStage, model: Any, params: Any) -> float:
  """XLA's count for one batch's loss and gradient, before it optimises; for a model of these parameters."""
  task, settings = stage.program
  whole = dataclasses.replace(settings, microbatches=1)
  lane = jax.tree.map(lambda x: x[0], cohorts.lane_arrays([stage.lane]))

  def step(params, key):
    return losses.loss_and_grads(model, task, whole, params, *losses.training_data(task, whole, key, lane))

  counted = jax.jit(step).lower(params, jax.random.key(0)).cost_analysis()
  return counted["flops"] if counted else math.nan


def _text(name: str, wanted: Sequence[Stage], made: Sequence[Stage], groups: Sequence[Group], seconds: float) -> str:
  lanes = sum(len(group.lanes) for group in groups)
  missing = lanes + len(made)
  lines = [
    f"{name}: {len(wanted)} stages, {len(wanted) - missing} cached, {missing} missing "
    f"({len(made)} to compile or draw, {lanes} to train)",
    f"devices: {jax.device_count()} x {jax.devices()[0].device_kind}",
  ]
  if groups:
    lines += [
      "",
      "| lanes | programs x lanes | layout | steps | FLOPs | memory a device | disk | time |",
      "|" + "---|" * 8,
    ]
    lines += [_row(group) for group in groups]
  flops = sum(group.speed.flops * group.lane_steps for group in groups)
  disk = sum(group.speed.kept * len(group.lanes) for group in groups)
  lines += ["", f"in all: {flops:.2e} FLOPs, {_bytes(disk)} on disk, about {_time(seconds)}; measuring comes on top"]
  return "\n".join(lines)


def _row(group: Group) -> str:
  kinds = "+".join(dict.fromkeys(lane.kind for lane in group.lanes))
  cells = [
    f"{len(group.lanes)} {kinds} {group.lanes[0].task.name}",
    f"{math.ceil(len(group.lanes) / group.size)} x {group.size}",
    f"{group.speed.layout.devices}x{group.speed.layout.inner}",
    f"{group.lanes[0].settings.steps}",
    f"{group.speed.flops * group.lane_steps:.2e}",
    _bytes(group.speed.memory),
    _bytes(group.speed.kept * len(group.lanes)),
    _time(group.seconds),
  ]
  return f"| {' | '.join(cells)} |"


def _bytes(number: float) -> str:
  return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _time(seconds: float) -> str:
  if seconds < 120:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
