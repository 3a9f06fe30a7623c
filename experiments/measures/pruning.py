"""Pruning fine-tuned models (Figs. 55-59): which accuracy returns when K weights or neurons are zeroed.

Every score stands beside random pruning of the same scope: the mean over `random_draws` draws, and the best of
them at each K.
"""

import numpy as np

from experiments.measures import Measure, Measured, row_of
from experiments.measures.data import rows_of_tests
from experiments.measures.pruner import Pruner
from experiments.models import Models, Trained
from experiments.schema import value_at
from finetune_wrappers.analysis import pruning
from finetune_wrappers.training import step
from finetune_wrappers.training.stages import Stage
from finetune_wrappers.types import InputError, require

_NAMES = {"query": "Q", "key": "K", "value": "V", "linear": "O", "linear_1": "in", "linear_2": "out"}


def stages(plan) -> list[Stage]:
  """Every fine-tuned model.

  Raises:
    InputError: for scopes, scores and Ks that do not fit each other.
  """
  config = plan.config.pruning
  require(0 in config.ks and any(config.ks), "pruning.ks", config.ks, "0 and larger whole numbers")
  for scope in config.scopes:
    _check_scope(plan, scope)
  if config.single_weights and not (1 in config.ks and "weight" in config.units):
    raise InputError("pruning.single_weights: needs 1 among ks and weight among units, to compare with a random weight")
  if config.single_weights or config.histogram_ks:
    _check_one_model(plan)
  return list(plan.finetunes())


def _check_one_model(plan) -> None:
  """Single weights and predictions are told apart by learning rate and C_Tr only."""
  for field, key in {**plan.axes, **plan.base_axes}.items():
    if field not in ("learning_rate", "c_tr"):
      values = value_at(plan.config, key)
      require(len(values) == 1, key, values, "one value with pruning.single_weights or pruning.histogram_ks")


def _check_scope(plan, scope: str) -> None:
  """Raises InputError for a scope that `pruning.scope_mask` would refuse; parameters are not needed."""
  paths = plan.paths()
  known = scope in pruning.SCOPES or any(path == scope or path.startswith(f"{scope}/") for path in paths)
  allowed = f"{', '.join(pruning.SCOPES)}, or one of {', '.join(paths)}, or what they begin with"
  require(known, "pruning.scopes", scope, allowed)


def measure(models: Models) -> Measured:
  """Rows of stage `prune` (by k, unit, score, scope; guesses of its test sets) and `prune_single`; predictions by k."""
  plan, config = models.plan, models.plan.config.pruning
  base = models.load(plan.bases()[0])
  pruner = Pruner(plan, base.model)
  out = Measured(rows=rows_of_tests(plan, base.labels, config.eval_size, kind="prune"))
  for stage in stages(plan):
    trained = models.load(stage)
    for scope in config.scopes:
      for unit in config.units:
        out.rows += _curves(plan, pruner, trained, unit, scope)
      if config.single_weights and not trained.diverged:
        out.rows += _single_weights(plan, pruner, trained, scope)
    if config.histogram_ks and not trained.diverged:
      out.rows += _histograms(plan, pruner, trained)
  return out


def _curves(plan, pruner: Pruner, trained: Trained, unit: str, scope: str) -> list:
  ks = plan.config.pruning.ks
  by_score, random = pruner.curves(trained.params, trained.compiled, unit=unit, scope=scope)
  tables = {**by_score, "random": random.mean(axis=0), "random_best": random.max(axis=0)}
  fields = {"kind": "prune", "unit": unit, "scope": scope}
  return [
    row_of(plan, trained.stage, metric, None if trained.diverged else value, k=k, c_te=c_te, score=score, **fields)
    for score, values in tables.items()
    for k, at_k in zip(ks, values.tolist(), strict=True)
    for (metric, c_te), value in zip(step.METRICS, at_k, strict=True)
  ]


def _single_weights(plan, pruner: Pruner, trained: Trained, scope: str) -> list:
  """One row each for W1..W4, the weights that the gradient score ranks first, alone at zero (Figs. 55, 56)."""
  places, values = pruner.single_weights(trained.params, trained.compiled, scope=scope)
  rows = []
  for number, (path, index) in enumerate(pruning.first_units(places, plan.config.pruning.single_weights)):
    fields = {"kind": "prune_single", "unit": "weight", "scope": scope, "score": "gradient", "k": 1}
    fields |= {"rank": number + 1, "weight": weight_name(path, index, trained.directions)}
    for (metric, c_te), value in zip(step.METRICS, values[number].tolist(), strict=True):
      rows.append(row_of(plan, trained.stage, metric, value, c_te=c_te, **fields))
  return rows


def _histograms(plan, pruner: Pruner, trained: Trained) -> list:
  """Share of each predicted class on the test sets, before and after pruning (Fig. 59)."""
  scope, ks = plan.config.pruning.scopes[0], plan.config.pruning.histogram_ks
  rows = []
  for c_te, table in pruner.predictions(trained.params, trained.compiled, scope=scope).items():
    for k, answers in zip(ks, table, strict=True):
      counts = np.bincount(answers, minlength=len(trained.labels)).tolist()
      fields = {"kind": "prune", "k": k, "c_te": c_te, "unit": "weight", "scope": scope, "score": "gradient"}
      rows += [
        row_of(plan, trained.stage, "predicted_share", count / len(answers), label=name, **fields)
        for name, count in zip(trained.labels, counts, strict=True)
        if count
      ]
  return rows


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


MEASURE = Measure(stages, measure)
