"""Pruning fine-tuned models (Figs. 55-59): what comes back when K weights or neurons are zeroed."""

import functools

import jax
import jax.numpy as jnp

from experiments.measures import Measure, Measured, rows_of
from experiments.measures.data import rows_of_tests
from experiments.models import Models
from experiments.plan import within
from experiments.schema import value_at
from finetune_wrappers.analysis import masks
from finetune_wrappers.analysis.pruning import Pruner, PruneSettings
from finetune_wrappers.training.stages import Stage
from finetune_wrappers.types import InputError, require

_NAMES = {"query": "Q", "key": "K", "value": "V", "linear": "O", "linear_1": "in", "linear_2": "out"}


def stages(plan) -> list[Stage]:
  """Every fine-tuned model.

  Raises:
    InputError: for settings that exclude each other, or a scope that the models lack, before anything is trained.
  """
  settings = _settings(plan)
  _check_scopes(plan, settings.scopes)
  if settings.single_weights or settings.histogram_ks:
    _check_one_model(plan)
  return list(plan.finetunes())


def _settings(plan) -> PruneSettings:
  with within("pruning"):
    return PruneSettings(**plan.config.pruning)


def _check_one_model(plan) -> None:
  """Reports of single weights and of predictions tell models apart by learning rate and C_Tr only."""
  for field, key in {**plan.axes, **plan.base_axes}.items():
    if field not in ("learning_rate", "c_tr"):
      values = value_at(plan.config, key)
      require(len(values) == 1, key, values, "one value with pruning.single_weights or pruning.histogram_ks")


def _check_scopes(plan, scopes: tuple[str, ...]) -> None:
  """Refuses a path before training, by the parameters' shapes: nothing is compiled for them."""
  model = plan.outline()
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"])
  for scope in scopes:
    try:
      masks.check_scope(scope, shapes, compiled=plan.config.setting == "tracr")
    except InputError as error:
      raise InputError(f"pruning.scopes: {str(error).removeprefix('scope: ')}") from error


def measure(models: Models) -> Measured:
  """Rows of stage `prune` (by k, unit, score, scope; guesses of its test sets) and `prune_single`; predictions by k."""
  plan, settings = models.plan, _settings(models.plan)
  base = models.load(plan.bases()[0])
  pruner = Pruner(base.model, plan.task, settings)
  out = Measured(rows=rows_of_tests(plan, base.labels, settings.eval_size, kind="prune"))
  for stage in stages(plan):
    trained = models.load(stage)
    found = pruner(trained.params, compiled=trained.compiled)
    if trained.diverged:
      rows = [row for scope in settings.scopes for row in found.curve_rows(scope)]
    else:
      rows = found.rows(trained.labels, functools.partial(weight_name, labels=trained.directions))
    out.rows += rows_of(plan, stage, rows, diverged=trained.diverged)
  return out


def weight_name(path: str, index: tuple[int, ...], labels: list[str]) -> str:
  """A weight as the paper writes it, with residual directions by name: `B1 W_V[one,0]`, `B2 b_out[answer:3]`.

  Args:
    path: as `pruning.named_leaves` gives it.
    index: into the array; (from, to) for a matrix.
    labels: name of each residual direction.
  """
  if path.endswith("embedding"):
    return f"{'token' if path.startswith('token') else 'position'}[{index[0]},{labels[index[1]]}]"
  block, _, layer, kind = path.split("/")
  names = [str(i) for i in index]
  if layer in ("linear", "linear_2"):
    names[-1] = labels[index[-1]]
  elif kind == "kernel":
    names[0] = labels[index[0]]
  return f"B{block.removeprefix('blocks_')} {'W' if kind == 'kernel' else 'b'}_{_NAMES[layer]}[{','.join(names)}]"


MEASURE = Measure(stages, measure, needs=("pruning",))
