"""The compiled programs of a Trainer: how many lanes each takes, in which layout, compiled once."""

import collections
from collections.abc import Callable, Sequence
from typing import Any

import jax

from finetune_wrappers.models.model import Model
from finetune_wrappers.training import calibration, hosts
from finetune_wrappers.training.cohort import Cohort, lane_arrays
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.schedule import identity_of, layout_name, steps_of
from finetune_wrappers.training.stages import RootStage, Stage, TrainStage, model_after, params_like, root_of
from finetune_wrappers.training.step import Lane
from finetune_wrappers.training.store import Store
from finetune_wrappers.types import Params

# (root stage) -> (its model, its parameters)
Roots = Callable[[RootStage], tuple[Model, Params]]

_MOST_LANES = 64  # of an accelerator
_SHARE_OF_MEMORY = 0.8  # the rest is for evaluation, and for what XLA needs beside the program


class Programs:
  """Chooses and keeps them.

  Args:
    store: remembers layouts, so that a resumed run repeats them.
    layout: of every program; None chooses each by calibration.
    lanes: most lanes in one program; 0 means one for each CPU device, and for each accelerator as many as its memory
      holds, up to 64.
  """

  def __init__(self, store: Store, layout: Layout | None, lanes: int):
    self._store, self._layout, self._lanes = store, layout, lanes
    self._most: dict[str, int] = {}  # lanes, by program
    self._ahead: dict[str, int] = collections.defaultdict(int)  # lane-steps of each program that a run begins with
    self._cohorts: dict[tuple[Model, str, Layout], Cohort] = {}

  def expect(self, stages: Sequence[Stage]) -> None:
    """What will be trained: it decides whether choosing a layout is worth its time."""
    for stage in stages:
      if isinstance(stage, TrainStage):
        self._ahead[identity_of(stage)] += steps_of(stage)

  def lanes_of(self, stage: Stage, roots: Roots) -> int:
    """How many of its kind make a program, at most; one root is made at a time."""
    if not isinstance(stage, TrainStage):
      return 1
    identity = identity_of(stage)
    if identity not in self._most:
      self._most[identity] = self._lanes or jax.device_count() * self._lanes_of_a_device(stage, roots)
    return self._most[identity]

  def _lanes_of_a_device(self, stage: TrainStage, roots: Roots) -> int:
    if jax.default_backend() == "cpu":
      return 1
    room = calibration.device_memory()
    if room is None or jax.process_count() > 1:
      return _MOST_LANES
    model, params = roots(root_of(stage))
    one = self._cohort(model_after(stage.parent, model), stage, Layout(1, "map"))
    used = one.memory([params_like(stage.parent, params)], lane_arrays([stage.lane]))
    return max(1, min(_MOST_LANES, int(_SHARE_OF_MEMORY * room / used)))

  def shrink(self, lanes: Sequence[TrainStage]) -> bool:
    """After a device ran out of memory: half as many lanes a program from now on; False if it was one lane."""
    self._cohorts.clear()
    if len(lanes) > 1:
      self._most[identity_of(lanes[0])] = len(lanes) // 2
    return len(lanes) > 1

  def layout_of(self, stage: TrainStage, lanes: int) -> Layout | None:
    """The layout that so many lanes of this kind will train in; None if it is yet to be chosen."""
    if self._layout is not None:
      return self._layout
    kept = self._store.recall(layout_name(identity_of(stage)))
    return Layout(**kept["layout"]) if kept and kept["lanes"] >= lanes else None

  def cohort(
    self,
    model: Model,
    stage: TrainStage,
    params: Sequence[Params],
    lane: Lane,
    position: int,
    choosing: Callable[[], None],
  ) -> tuple[Cohort, dict[str, float]]:
    """The compiled program for these lanes, and how fast each layout was that was tried.

    Its layout is kept in the store, so that a resumed run repeats it; fewer lanes, such as the rest of a sweep, use the
    layout of more, and for more it is chosen anew.

    Args:
      model: of all lanes.
      stage: one of them.
      params: R parameter pytrees.
      lane: arrays [R].
      position: steps they have done.
      choosing: called before a layout is chosen, which takes a while.
    """
    if self._layout is not None:
      return self._cohort(model, stage, self._layout), {}
    identity = identity_of(stage)
    name = layout_name(identity)
    kept = hosts.agree(lambda: self._store.recall(name))
    if kept is None or (kept["lanes"] < len(params) and not position):
      choosing()
      layout, rates = calibration.calibrate(
        lambda x: self._cohort(model, stage, x), params, lane, stage.optimizer, lane_steps=self._ahead[identity]
      )
      chosen = {"layout": vars(layout), "lanes": len(params), "lane_steps_per_second": rates}
      kept = hosts.agree(lambda: self._settled(name, chosen))
    return self._cohort(model, stage, Layout(**kept["layout"])), kept["lane_steps_per_second"]

  def _settled(self, name: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """What another process chose meanwhile for as many lanes, or else this, which is kept."""
    other = self._store.recall(name)
    if other is None or other["lanes"] < chosen["lanes"]:
      self._store.remember(name, chosen)
      return chosen
    return other

  def _cohort(self, model: Model, stage: TrainStage, layout: Layout) -> Cohort:
    cached = (model, identity_of(stage), layout)
    if cached not in self._cohorts:
      self._cohorts[cached] = Cohort(model, stage.recipe, layout)
    return self._cohorts[cached]
