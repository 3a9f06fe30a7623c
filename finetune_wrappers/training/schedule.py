"""In which order stages are trained, and which of them together."""

import collections
import dataclasses
import functools
import hashlib
import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence

import jax

from finetune_wrappers.training.stages import Stage, TrainStage, describe, methods_to, root_of
from finetune_wrappers.types import canonical_json


@dataclasses.dataclass(frozen=True)
class Work:
  """What is made together: one root stage, or the lanes of one program that have come equally far.

  Attributes:
    stages: one root, or R TrainStages.
    position: steps they have done.
  """

  stages: tuple[Stage, ...]
  position: int = 0

  @property
  def lanes(self) -> tuple[TrainStage, ...]:
    """The stages, if they are lanes."""
    return tuple(stage for stage in self.stages if isinstance(stage, TrainStage))

  @property
  def lane_steps(self) -> int:
    """Steps left, of all lanes."""
    return sum(steps_of(stage) - self.position for stage in self.lanes)


def next_group(left: Sequence[Stage], wanted: Mapping[str, Stage]) -> list[Stage]:
  """What can be made next: a root, or every lane of one program whose parent is finished; none if nothing can.

  Args:
    left: stages that are neither finished nor given up, parents first.
    wanted: all that are not finished, by key.
  """
  ready = [s for s in left if not isinstance(s, TrainStage) or s.parent.key not in wanted]
  for stage in ready:
    if not isinstance(stage, TrainStage):
      return [stage]
  programs = {stage.key: identity_of(stage) for stage in ready if isinstance(stage, TrainStage)}
  return [stage for stage in ready if programs[stage.key] == programs[ready[0].key]]


def works_of(group: Sequence[Stage], far: Mapping[str, int], size: int) -> list[Work]:
  """A group as runs of a program: at most `size` lanes that have come equally far each, the farthest first."""
  ordered = sorted(group, key=lambda stage: -far.get(stage.key, 0))
  found = []
  for position, some in itertools.groupby(ordered, lambda stage: far.get(stage.key, 0)):
    equal = tuple(some)
    found += [Work(equal[i : i + size], position) for i in range(0, len(equal), size)]
  return found


def all_works(wanted: Sequence[Stage], far: Mapping[str, int], size: Callable[[TrainStage], int]) -> list[Work]:
  """All works, as `next_group` and `works_of` give them one after another; in n log n steps for n stages.

  Args:
    wanted: stages that are not finished, parents first.
    far: steps that a stage's checkpoint has, by key.
    size: most lanes in one program, for a lane of it.
  """
  works = [Work((stage,)) for stage in wanted if not isinstance(stage, TrainStage)]
  lanes = [stage for stage in wanted if isinstance(stage, TrainStage)]
  number = {lane.key: i for i, lane in enumerate(lanes)}
  children: dict[str, list[int]] = collections.defaultdict(list)
  first: list[int] = []  # heaps: of all lanes that are ready, and of each program's, the farthest first
  programs: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
  identities: dict[int, str] = {}
  made: set[int] = set()

  def ready(i: int) -> None:
    identities[i] = identity_of(lanes[i])
    heapq.heappush(first, i)
    heapq.heappush(programs[identities[i]], (-far.get(lanes[i].key, 0), i))

  for i, lane in enumerate(lanes):
    if lane.parent.key in number:
      children[lane.parent.key].append(i)
    else:
      ready(i)
  while first:
    if first[0] in made:
      heapq.heappop(first)
      continue
    program = programs[identities[first[0]]]
    most, position = size(lanes[first[0]]), program[0][0]
    some = []
    while program and program[0][0] == position and len(some) < most:
      some.append(heapq.heappop(program)[1])
    works.append(Work(tuple(lanes[i] for i in some), -position))
    made |= {*some}
    for child in (child for i in some for child in children[lanes[i].key]):
      ready(child)
  return works


@functools.lru_cache(maxsize=10_000)
def identity_of(stage: TrainStage) -> str:
  """16 hexadecimal digits for all stages that one program can train."""
  changed = [method for method in methods_to(stage.parent) if method.changes_model]
  text = canonical_json(describe([*stage.recipe, root_of(stage).architecture, changed]))
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def layout_name(identity: str) -> str:
  """Under which the store remembers the layout of a program on the devices at hand."""
  return f"layout-{identity}-{jax.device_count()}x{jax.default_backend()}"


def steps_of(stage: Stage) -> int:
  """Steps of a stage; a root has none."""
  return stage.optimizer.steps if isinstance(stage, TrainStage) else 0
