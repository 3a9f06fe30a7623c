"""What a config would train, how much that is and about how long it takes: `--dry_run`.

The Trainer's own plan, with what a moment of each program was measured to cost.
"""

import collections
import contextlib
import dataclasses
import functools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments import results, runner
from experiments.environment import use_all_cores
from experiments.plan import Plan
from experiments.progress import Progress
from finetune_wrappers.files import located
from finetune_wrappers.training import calibration, step
from finetune_wrappers.training.cohort import Cohort, lane_arrays
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.loop import Trainer, missing_stages
from finetune_wrappers.training.schedule import Work, identity_of
from finetune_wrappers.training.stages import RootStage, TrainStage, model_after, params_like, root_of, with_ancestors
from finetune_wrappers.training.store import Store

_SECONDS = 3.0  # of training that a program is timed for


@dataclasses.dataclass(frozen=True)
class Speed:
  """What was measured of a program.

  Attributes:
    layout: of its lanes.
    lanes: how many it was measured with.
    flops: of one lane's step, loss and gradient.
    memory: bytes on each device.
    kept: bytes a lane leaves on disk.
    compile_seconds: once for each number of lanes.
    step_seconds: of all lanes.
    eval_seconds: likewise.
    save_seconds: of a lane.
  """

  layout: Layout
  lanes: int
  flops: float
  memory: int
  kept: int
  compile_seconds: float
  step_seconds: float
  eval_seconds: float
  save_seconds: float

  def seconds(self, work: Work) -> float:
    """About how long that work takes, without compilation."""
    share = self.layout.lanes_a_device(len(work.stages)) / self.layout.lanes_a_device(self.lanes)
    optimizer = work.lanes[0].optimizer
    left = 1 - work.position / optimizer.steps
    whole = optimizer.steps * self.step_seconds + len(optimizer.eval_steps) * self.eval_seconds
    return share * left * whole + len(work.stages) * self.save_seconds


@dataclasses.dataclass
class Line:
  """Works of one program and kind of training, as one line of the table."""

  works: list[Work]
  speed: Speed
  seconds: float = 0.0

  @property
  def lanes(self) -> int:
    """Of all its works."""
    return sum(len(work.stages) for work in self.works)

  @property
  def flops(self) -> float:
    """Of all its works."""
    return self.speed.flops * sum(work.lane_steps for work in self.works)


def describe(config: ConfigDict, workdir: str) -> str:
  """The plan as text; trains nothing and leaves no stage in the workdir, but the data that stages need.

  Models that are missing at the root of a chain are made, since their shapes are needed, and thrown away.

  Raises:
    InputError: as the run itself would; and for a damaged stage, which the run would train again.
  """
  use_all_cores()
  planned = runner.plan_of(config, workdir)
  results.check_same(located(workdir) / config.name, config)
  wanted = len(with_ancestors(planned.stages))
  with (
    runner.enough_memory(),
    _store(workdir) as store,
    tempfile.TemporaryDirectory() as scratch,
    Progress() as progress,
  ):
    runner.prepare(planned, progress)
    missing = missing_stages(store, planned.stages)
    made = [stage for stage in missing if not isinstance(stage, TrainStage)]
    programs = len({identity_of(stage) for stage in missing if isinstance(stage, TrainStage)})
    summary = _summary(config.name, wanted, len(made), len(missing))
    print(f"{summary}\n{_unknown(len(made), programs)}", file=sys.stderr, flush=True)
    progress.count("program")
    show = functools.partial(progress, total=programs)
    show(0, text="making what training begins with" if made else "timing programs")
    roots = Roots(store, planned.plans[0])
    trainer = runner.trainer_of(config, planned, store)
    works = trainer.plan(planned.stages, roots)
    for root in made:
      roots(root)  # pyright: ignore[reportArgumentType]
    lines = Meter(trainer, Store(scratch), roots, works, lambda done: show(done, text="timing programs")).lines()
  return _text(summary, lines, roots.seconds)


@contextlib.contextmanager
def _store(workdir: str) -> Iterator[Store]:
  """The workdir's; or an empty one, where there is none yet."""
  if (located(workdir) / "stages").exists():
    yield Store(workdir)
    return
  with tempfile.TemporaryDirectory() as empty:
    yield Store(empty)


class Roots:
  """Models and parameters of root stages, from the store or made."""

  def __init__(self, store: Store, plan: Plan):
    self._store, self._plan = store, plan
    self._made: dict[str, tuple[Any, dict]] = {}
    self.seconds = 0.0

  def __call__(self, stage: RootStage) -> tuple[Any, Any]:
    if self._store.has(stage):
      arrays, facts = self._store.load(stage)
    else:
      begun = time.perf_counter()
      arrays, facts = self._made.get(stage.key) or self._made.setdefault(stage.key, self._plan.build(stage))
      self.seconds += time.perf_counter() - begun
    return self._plan.restore(facts), arrays["params"]


class Meter:
  """Times programs for a moment, each once.

  Args:
    trainer: knows the layouts that are chosen already; elsewhere the first candidate is timed.
    scratch: to time a save in.
    roots: what training begins with.
    works: everything that will be made.
    progress: called with how many programs are timed.
  """

  def __init__(
    self,
    trainer: Trainer,
    scratch: Store,
    roots: Roots,
    works: Sequence[Work],
    progress: Callable[[int], None],
  ):
    self._progress = progress
    self._programs, self._scratch, self._roots = trainer.programs, scratch, roots
    self._works = [work for work in works if work.lanes]
    self._speeds: dict[str, Speed] = {}
    self._compiled: set[tuple[str, int]] = set()
    self._ahead: dict[str, int] = collections.defaultdict(int)
    self._most: dict[str, Work] = {}
    for work in self._works:
      identity = identity_of(work.lanes[0])
      self._ahead[identity] += work.lane_steps
      if len(work.stages) > len(self._most.setdefault(identity, work).stages):
        self._most[identity] = work

  def lines(self) -> list[Line]:
    """What the works cost; those of one program and of the same kinds of stage together."""
    found: dict[tuple[str, str], Line] = {}
    for work in self._works:
      identity = identity_of(work.lanes[0])
      kinds = "+".join(dict.fromkeys(stage.kind for stage in work.lanes))
      if identity not in self._speeds:
        self._speeds[identity] = self._measure(self._most[identity])
        self._progress(len(self._speeds))
      speed = self._speeds[identity]
      line = found.setdefault((identity, kinds), Line([], speed))
      line.works.append(work)
      line.seconds += speed.seconds(work) + self._compilations(identity, work, speed) * speed.compile_seconds
    return list(found.values())

  def _compilations(self, identity: str, work: Work, speed: Speed) -> int:
    """How many programs this work is the first to need, those tried in the choice of a layout among them."""
    first = not any(known == identity for known, _ in self._compiled)
    shape = (identity, speed.layout.lanes_a_device(len(work.stages)))
    needed = 0 if shape in self._compiled else 1
    self._compiled.add(shape)
    if first and self._programs.layout_of(work.lanes[0], len(work.stages)) is None:
      rate = speed.lanes / speed.step_seconds
      if calibration.worth_calibrating(self._ahead[identity], rate=rate, compile_seconds=speed.compile_seconds):
        needed += len(calibration.candidate_layouts(len(work.stages), work.lanes[0].optimizer)) - 1
    return needed

  def _measure(self, work: Work) -> Speed:
    lanes, size = work.lanes, len(work.stages)
    model, root = self._roots(root_of(lanes[0]))
    model, params = model_after(lanes[0].parent, model), params_like(lanes[0].parent, root)
    kept, optimizer = params_like(lanes[0], root), lanes[0].optimizer
    layout = self._programs.layout_of(lanes[0], size) or calibration.candidate_layouts(size, optimizer)[0]
    program = Cohort(model, lanes[0].recipe, layout)
    lane = lane_arrays([stage.lane for stage in lanes])
    timed = calibration.timed(program, [params] * size, lane, _SECONDS)
    begun = time.perf_counter()
    self._scratch.save(lanes[0], {"params": kept}, {})
    save_seconds = time.perf_counter() - begun
    return Speed(
      layout,
      size,
      flops=flops_of(lanes[0], model, params),
      memory=program.memory([params] * size, lane),
      kept=sum(leaf.nbytes for leaf in jax.tree.leaves(kept)),
      save_seconds=save_seconds,
      **timed,
    )


def flops_of(stage: TrainStage, model: Any, params: Any) -> float:
  """XLA's count for one batch's loss and gradient, before it optimises; model and parameters are the parent's."""
  optimizer = dataclasses.replace(stage.optimizer, microbatches=1)
  recipe = step.with_lane(stage.recipe._replace(optimizer=optimizer), stage.lane)
  size, fed = optimizer.batch_size, ()
  if recipe.objective.fed:
    fed = jax.tree.map(lambda x: x[0], recipe.objective.feed(recipe.task, stage.lane, size, range(1)))

  def one_step(params, key):
    batch = fed if recipe.objective.fed else recipe.objective.draw(recipe.task, key, size)
    trained, frozen = recipe.method.split(params, key)
    own = recipe.method.model(model)
    return step.loss_and_grads(own, recipe, trained=trained, frozen=frozen, batch=batch, key=key)

  counted = jax.jit(one_step).lower(params, jax.random.key(0)).cost_analysis()
  return counted["flops"] if counted else math.nan


def _summary(name: str, wanted: int, made: int, missing: int) -> str:
  return (
    f"{name}: {wanted} stages, {wanted - missing} cached, {missing} missing "
    f"({made} to compile or draw, {missing - made} to train)"
  )


def _unknown(made: int, programs: int) -> str:
  """What is not known before it is tried."""
  begun = f"{made} models are compiled or drawn first, for their sizes; " if made else ""
  return f"not known yet: FLOPs, sizes, times. {begun}{programs} programs are compiled and timed, {_SECONDS:.0f} s each"


def _text(summary: str, lines: Sequence[Line], root_seconds: float) -> str:
  found = [summary, f"devices: {jax.device_count()} x {jax.devices()[0].device_kind}"]
  if lines:
    header = "| lanes | programs x lanes | layout | steps | FLOPs | memory a device | disk | time |"
    found += ["", header, "|" + "---|" * 8, *map(_row, lines)]
  flops, disk = sum(line.flops for line in lines), sum(line.speed.kept * line.lanes for line in lines)
  seconds = root_seconds + sum(line.seconds for line in lines)
  found += ["", f"in all: {flops:.2e} FLOPs, {_bytes(disk)} on disk, about {_time(seconds)}; measuring comes on top"]
  return "\n".join(found)


def _row(line: Line) -> str:
  stages = [stage for work in line.works for stage in work.lanes]
  kinds = "+".join(dict.fromkeys(stage.kind for stage in stages))
  layout = line.speed.layout
  cells = [
    f"{line.lanes} {kinds} {stages[0].task.name}",
    f"{len(line.works)} x {max(len(work.stages) for work in line.works)}",
    f"{layout.devices}x{layout.inner}",
    f"{stages[0].optimizer.steps}",
    f"{line.flops:.2e}",
    _bytes(line.speed.memory),
    _bytes(line.speed.kept * line.lanes),
    _time(line.seconds),
  ]
  return f"| {' | '.join(cells)} |"


def _bytes(number: float) -> str:
  return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _time(seconds: float) -> str:
  if seconds < 120:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
