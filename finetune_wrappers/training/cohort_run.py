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
    self._evaluated = program.settings.eval_steps
    self._lane = lane
    self._laid = program.lay_out(lane)
    self._state: Any = None
    self._metrics: list[np.ndarray] = []  # [R, len(METRICS)] for each evaluation
    self._losses: list[np.ndarray] = []  # [R]

  def begin(self, params: Sequence[Params], position: int, kept: Sequence[Any]) -> None:
    """From R parents' parameters, or from what `checkpoint` gave for each lane at that position."""
    self._state = self._program.init(params, self._lane)
    if not position:
      return
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *kept)
    self._state = self._program.lay_out(self._like(stacked["state"]))
    if "metrics" in stacked:
      self._metrics, self._losses = (list(stacked[name].swapaxes(0, 1)) for name in ("metrics", "losses"))
    self.position = position

  def _like(self, leaves: Sequence[np.ndarray]) -> Any:
    """Saved leaves in the structure of a fresh state."""
    fresh = self._gathered(self._state)
    if [leaf.shape for leaf in leaves] != [leaf.shape for leaf in jax.tree.leaves(fresh)]:
      raise InputError("workdir: a checkpoint has other shapes; move workdir/cohorts away to start those lanes again")
    return jax.tree.structure(fresh).unflatten(leaves)

  def _gathered(self, tree: Any) -> Any:
    return self._program.gather(tree, len(self.lanes))

  def parts(self) -> Iterator[int]:
    """Trains to the end, part by part; yields the steps of each as it is done."""
    steps = 1  # the first part has one step: it compiles
    while len(self._metrics) < len(self._evaluated):
      begun, stop = time.monotonic(), min(self._evaluated[len(self._metrics)], self.position + steps)
      done = stop - self.position
      self._advance(stop)
      steps = hosts.agree(lambda s=steps, d=done, b=begun: _next_part(s, d, time.monotonic() - b))
      yield done

  def _advance(self, stop: int) -> None:
    evaluations = len(self._metrics)
    asked = stop == self._evaluated[evaluations]
    since = self._evaluated[evaluations - 1] if evaluations else 0
    self._state, measured = self._program.advance(
      self._state, self._laid, self.position, stop, since if asked else None
    )
    metrics, losses = self._gathered(measured)  # waits for the devices
    if asked:
      self._metrics.append(metrics)
      self._losses.append(losses)
    self.position = stop

  def checkpoint(self) -> dict[str, Any]:
    """What `begin` needs to go on from here, with one entry for each lane."""
    curves = self._curves() if self._metrics else {}  # Orbax keeps no empty arrays
    return {"state": jax.tree.leaves(self._gathered(self._state)), **curves}

  def results(self) -> list[dict[str, Any]]:
    """What is kept of each lane at the end: parameters, curves and where they were measured."""
    final = self._gathered(self._state)
    arrays = {"params": final.params, "diverged_step": final.diverged_step, **self._curves()}
    steps = np.array(self._evaluated)
    return [{**jax.tree.map(lambda x, i=i: x[i], arrays), "steps": steps} for i in range(len(self.lanes))]

  def _curves(self) -> dict[str, np.ndarray]:
    lanes = len(self.lanes)
    metrics = np.array(self._metrics, np.float32).reshape(-1, lanes, len(step.METRICS))
    losses = np.array(self._losses, np.float32).reshape(-1, lanes)
    return {"metrics": metrics.swapaxes(0, 1), "losses": losses.swapaxes(0, 1)}


def _next_part(steps: int, done: int, seconds: float) -> int:
  """Steps of the next part, grown step by step to what takes `_PART_SECONDS`."""
  return max(1, min(4 * steps, int(_PART_SECONDS * max(done, 1) / max(seconds, 1e-3))))
