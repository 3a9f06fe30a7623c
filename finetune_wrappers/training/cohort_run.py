"""One cohort from its last checkpoint to its end: parts of training, curves, and what is kept of each lane."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from finetune_wrappers.training import hosts, step
from finetune_wrappers.training.cohort import Cohort
from finetune_wrappers.types import InputError, Params

_PART_SECONDS = 5.0  # how long a part of a run takes, and so about how long it goes on when it is told to stop


class CohortRun:
  """R lanes that have come equally far.

  Args:
    program: the compiled cohort.
    lanes: their keys, R of them.
    lane: their values, arrays [R].

  Attributes:
    position: steps done.
  """

  def __init__(self, program: Cohort, lanes: Sequence[str], lane: step.Lane):
    self.lanes = lanes
    self.position = 0
    self._program = program
    self._evaluated = program.recipe.optimizer.eval_steps
    self._lane = lane
    self._laid = program.layout.lay_out(lane)
    self._state: Any = None
    self._curves: list[dict[str, Any]] = []  # [R, ...] for each evaluation

  def begin(self, params: Sequence[Params], position: int, kept: Sequence[Any]) -> None:
    """From R parents' parameters, or from what `checkpoint` gave for each lane at that position."""
    self._state = self._program.init(params, self._lane)
    if not position:
      return
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *kept)
    laid = self._program.layout.lay_out(self._like(stacked.pop("state")))
    # Placed as the program places its own results: arrays of the host would compile the step a second time.
    placed, self._state = jax.tree.map(lambda x: x.sharding, self._state), None
    self._state = jax.tree.map(lambda x, where: jax.device_put(x, where, may_alias=False), laid, placed)
    evaluations = sum(step <= position for step in self._evaluated)
    self._curves = [jax.tree.map(lambda curve, i=i: curve[:, i], stacked) for i in range(evaluations)]
    self.position = position

  def _like(self, leaves: Sequence[np.ndarray]) -> Any:
    """Saved leaves in the structure of a fresh state."""
    fresh = self._gathered(self._state)
    if [leaf.shape for leaf in leaves] != [leaf.shape for leaf in jax.tree.leaves(fresh)]:
      raise InputError("workdir: a checkpoint has other shapes; move workdir/cohorts away to start those lanes again")
    return jax.tree.structure(fresh).unflatten(leaves)

  def _gathered(self, tree: Any) -> Any:
    return self._program.layout.gather(tree, len(self.lanes))

  def parts(self) -> Iterator[int]:
    """Trains to the end, part by part; yields the steps of each as it is done."""
    steps = 1  # the first part has one step: it compiles
    while len(self._curves) < len(self._evaluated):
      begun, stop = time.monotonic(), min(self._evaluated[len(self._curves)], self.position + steps)
      done = stop - self.position
      self._advance(stop)
      steps = hosts.agree(lambda s=steps, d=done, b=begun: _next_part(s, d, time.monotonic() - b))
      yield done

  def _advance(self, stop: int) -> None:
    evaluations = len(self._curves)
    asked = stop == self._evaluated[evaluations]
    since = self._evaluated[evaluations - 1] if evaluations else 0
    self._state, measured = self._program.advance(
      self._state, self._laid, start=self.position, stop=stop, since=since if asked else None
    )
    metrics, losses, logs = self._gathered(measured)  # waits for the devices
    if asked:
      self._curves.append({"metrics": metrics, "losses": losses, **({"logs": logs} if logs else {})})
    self.position = stop

  def checkpoint(self) -> dict[str, Any]:
    """What `begin` needs to go on from here, with one entry for each lane."""
    return {"state": jax.tree.leaves(self._gathered(self._state)), **self._stacked()}

  def results(self) -> list[dict[str, Any]]:
    """What is kept of each lane at the end: parameters, curves and where they were measured."""
    final, steps = self._gathered(self._state), np.array(self._evaluated)
    arrays = {"diverged_step": final.diverged_step, **self._stacked()}
    return [
      {"params": self._params(final, i), "steps": steps, **jax.tree.map(lambda x, i=i: x[i], arrays)}
      for i in range(len(self.lanes))
    ]

  def _params(self, final: step.LaneState, i: int) -> Params:
    """The weights of one lane, its trained and frozen parts joined."""
    own = jax.tree.map(lambda x: x[i], (dict(self._lane), final.trained, final.frozen))
    method = step.with_lane(self._program.recipe, own[0]).method
    return jax.tree.map(np.asarray, method.join(*own[1:]))

  def _stacked(self) -> dict[str, Any]:
    """Curves [R, E, ...] by name; none before the first evaluation, as Orbax keeps no empty arrays."""
    if not self._curves:
      return {}
    return jax.tree.map(lambda *at: np.stack(at, axis=1).astype(np.float32), *self._curves)


def _next_part(steps: int, done: int, seconds: float) -> int:
  """Steps of the next part, grown step by step to what takes `_PART_SECONDS`."""
  return max(1, min(4 * steps, int(_PART_SECONDS * max(done, 1) / max(seconds, 1e-3))))
