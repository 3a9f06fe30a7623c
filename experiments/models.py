"""Trained models, read from the stage store for the measures."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.plan import Plan
from finetune_wrappers.models.model import Model
from finetune_wrappers.training.stages import Stage, TrainStage, model_after, root_of
from finetune_wrappers.training.store import Store
from finetune_wrappers.types import Params


@dataclasses.dataclass(frozen=True)
class Trained:
  """One finished stage and what a measure needs beside it.

  Attributes:
    stage: what it is.
    model: as the stage's weights need it.
    params: float32 pytree.
    compiled: the weights of the chain's root: as Tracr compiled them, without noise, or before any training.
    directions: a name for each residual direction, [D], of compiled models; else empty.
    labels: symbol of each label.
    metrics: [E, M] in the order of the stage's evaluator; empty for a root stage.
    losses: mean training loss since the evaluation before, [E].
    logs: likewise what the objective logs, by name.
    steps: where they were evaluated, [E].
    diverged_step: first step whose loss was not finite, or -1.
    device: what trained it.
  """

  stage: Stage
  model: Model
  params: Params
  compiled: Params
  directions: list[str]
  labels: list[str]
  metrics: np.ndarray
  losses: np.ndarray
  logs: dict[str, np.ndarray]
  steps: np.ndarray
  diverged_step: int
  device: str

  @property
  def diverged(self) -> bool:
    """Whether this lane no longer counts as a result."""
    return self.diverged_step >= 0


class Models:
  """Loads the stages of one plan; each compiled root once.

  Args:
    store: filled by a Trainer.
    plan: of one task.
    on_load: called before a stage is loaded, to show how far a measure has come.
  """

  def __init__(self, store: Store, plan: Plan, on_load: Callable[[], None] = lambda: None):
    self._on_load = on_load
    self.plan: Any = plan  # measures of one setting know more of it than Plan says
    self._store = store
    self._root = functools.cache(self._store.load)

  def load(self, stage: Stage) -> Trained:
    """The finished stage."""
    self._on_load()
    root, facts = self._root(root_of(stage))
    arrays, own_facts = self._store.load(stage) if isinstance(stage, TrainStage) else (root, facts)
    return Trained(
      stage=stage,
      model=model_after(stage, self.plan.restore(facts)),
      params=_on_device(arrays["params"]),
      compiled=_on_device(root["params"]),
      directions=facts.get("labels", []),
      labels=self.plan.labels(facts),
      metrics=arrays.get("metrics", np.zeros((0, 4))),
      losses=arrays.get("losses", np.zeros(0)),
      logs=arrays.get("logs", {}),
      steps=arrays.get("steps", np.zeros(0, int)),
      diverged_step=int(arrays.get("diverged_step", -1)),
      device=own_facts["device"],
    )


def _on_device(params: Params) -> Params:
  if isinstance(params, dict):
    return {name: _on_device(value) for name, value in params.items()}
  return jnp.asarray(params)
