"""Training in one call, without a store: for notebooks, examples and analyses that train.

The Trainer (`loop.py`) does the same for sweeps that must survive being killed.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from finetune_wrappers.models.model import Model
from finetune_wrappers.rules import SEED, Many
from finetune_wrappers.tasks.task import Trainable
from finetune_wrappers.training.cohort import Cohort, lane_arrays
from finetune_wrappers.training.cohort_run import CohortRun
from finetune_wrappers.training.evaluators import Accuracies, Evaluator, Metric
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.methods import Method, Subset, require_floats
from finetune_wrappers.training.objectives import Objective
from finetune_wrappers.training.optim import Optimizer
from finetune_wrappers.training.stages import GivenStage, TrainStage
from finetune_wrappers.types import InputError, Params, require


@dataclasses.dataclass(frozen=True)
class TrainedRun:
  """One run, as it ended and on the way.

  Attributes:
    stage: what was trained.
    model: of these parameters; the parent's, unless the method changes it.
    params: float32 pytree, after the last step.
    steps: where it was evaluated, int [E].
    metrics: float32 [E, M], in the order of the evaluator's metrics.
    losses: mean training loss since the evaluation before, float32 [E].
    logs: likewise what the objective logs, by name.
    diverged_step: first step whose loss, or after which a weight, was not finite; or -1.
  """

  stage: TrainStage
  model: Model
  params: Params
  steps: np.ndarray
  metrics: np.ndarray
  losses: np.ndarray
  logs: dict[str, np.ndarray]
  diverged_step: int

  @property
  def metric_names(self) -> tuple[Metric, ...]:
    """What the M metrics are."""
    return self.stage.evaluator.metrics(self.stage.task)

  def curve(self, name: str, **fields: Any) -> np.ndarray:
    """One metric over the evaluations, float64 [E], such as `curve("acc_pt", c_te=0)`; NaN from where it diverged.

    Raises:
      InputError: for a metric that was not measured.
    """
    names = [(metric.name, dict(metric.fields)) for metric in self.metric_names]
    require((name, fields) in names, "curve", (name, fields), ", ".join(map(str, names)))
    values = self.metrics[:, names.index((name, fields))].astype(float)
    return self._until_gone(values)

  def _until_gone(self, values: np.ndarray) -> np.ndarray:
    return np.where((self.diverged_step >= 0) & (self.steps >= self.diverged_step), np.nan, values)

  def rows(self) -> list[dict[str, Any]]:
    """Metrics at every evaluation, `loss` and logs at every one after the first, which no step came before.

    Each has task, step, seed and all swept values. Values that are not finite, and all from where the run diverged,
    are None with `diverged`.
    """
    common = {"stage": self.stage.kind, "task": self.stage.task.name, "seed": self.stage.seed, **self.stage.swept()}
    curves = [({"metric": m.name, **dict(m.fields)}, self.curve(m.name, **dict(m.fields))) for m in self.metric_names]
    curves += [({"metric": name}, self._until_gone(own)) for name, own in {"loss": self.losses, **self.logs}.items()]
    found = []
    for place, (fields, curve) in enumerate(curves):
      first = 0 if place < len(self.metric_names) else 1  # the first step that has a value
      for step, value in zip(self.steps.tolist(), curve.tolist(), strict=True):
        gone = {} if np.isfinite(value) else {"value": None, "diverged": True}
        if step >= first:
          found.append({**common, **fields, "step": step, "value": value, **gone})
    return found


def train(
  model: Model,
  params: Params | Sequence[Params],
  task: Trainable,
  *,
  per_seed: bool | None = None,
  objective: Objective,
  optimizer: Optimizer,
  learning_rate: float,
  method: Method | None = None,
  evaluator: Evaluator | None = None,
  noise_std: float | None = None,
  seeds: Sequence[int] = (0,),
  kind: str = "finetune",
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[TrainedRun]:
  """Trains one run a seed, together.

  Args:
    model: whose parameters these are.
    params: to start from: one pytree for all seeds; with `per_seed` a list or tuple with one for each.
    task: where strings come from.
    per_seed: whether `params` has one pytree for each seed. A list or tuple may be either, and so it has to be said.
    objective: what is trained.
    optimizer: how long and by which steps.
    learning_rate: the maximum of the schedule.
    method: which parameters train; all by default.
    evaluator: what is measured on the way; by default the accuracies on 1000 strings of each test set.
    noise_std: standard deviation of Gaussian noise on the weights before the first step; none by default.
    seeds: of noise and data.
    kind: what rows call it.
    progress: called with (steps done, steps in all) as training goes.

  Returns:
    One run for each seed.

  Raises:
    InputError: for values that cannot be.
  """
  starts = starts_of(params, seeds, per_seed=per_seed)
  method = method or Subset()
  stages = [
    TrainStage(
      kind=kind,
      parent=GivenStage(name=type(model).__name__),
      task=task,
      objective=objective,
      method=method,
      optimizer=optimizer,
      evaluator=evaluator or Accuracies(1000),
      learning_rate=learning_rate,
      noise_std=noise_std,
      seed=seed,
    )
    for seed in seeds
  ]
  layout = Layout(min(jax.local_device_count(), len(stages)), "map")
  program = _cohort(model, stages[0].recipe, layout)
  run = CohortRun(program, [str(seed) for seed in seeds], lane_arrays([stage.lane for stage in stages]))
  run.begin(starts, 0, [])
  for _ in run.parts():
    progress(run.position, optimizer.steps)
  return [
    TrainedRun(
      stage,
      model=method.model(model),
      params=found["params"],
      steps=found["steps"],
      metrics=found["metrics"],
      losses=found["losses"],
      logs=found.get("logs", {}),
      diverged_step=int(found["diverged_step"]),
    )
    for stage, found in zip(stages, run.results(), strict=True)
  ]


def starts_of(
  params: Params | Sequence[Params], seeds: Sequence[int], *, per_seed: bool | None, name: str = "params"
) -> list[Params]:
  """One pytree for each seed; arguments as `train`, and what messages call the first.

  Raises:
    InputError: for no seeds, one that stands there twice, a list or tuple of which `per_seed` does not say what it is,
      not as many pytrees as seeds, pytrees of different structures or shapes, or arrays of other than floats.
  """
  Many(SEED).check("seeds", tuple(seeds) if np.iterable(seeds) else seeds)
  if per_seed is None and type(params) in (list, tuple):
    raise InputError(
      f"per_seed: missing, as {name} is a {type(params).__name__}; say True if it has one pytree for each seed, "
      "False if it is one pytree itself"
    )
  require_floats(params, name)
  if not per_seed:
    return [params] * len(seeds)
  many = isinstance(params, list | tuple)
  given = f"a {type(params).__name__}" + (f" of {len(params)}" if many else "")
  require(many and len(params) == len(seeds), name, given, f"a list of one pytree for each of {len(seeds)} seeds")
  shapes = [jax.tree.map(np.shape, own) for own in params]
  fine = all(own == shapes[0] for own in shapes)
  require(fine, name, "a list of different pytrees", "pytrees of one structure and the same shapes")
  return list(params)


# So that a model and its control, which train by one recipe, compile once.
_cohort = functools.lru_cache(maxsize=4)(Cohort)
