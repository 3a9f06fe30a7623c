"""Score, prune, evaluate (paper App. D): zero K weights or neurons of a model and look what comes back.

Every score stands beside random pruning of the same scope: the mean over `random_draws` draws, and the best of them at
each K. What is pruned and in which order is in `masks`.

    found = prune(model, params, task, PruneSettings(units=("neuron",)))
    found.rows()
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune_wrappers.analysis import masks
from finetune_wrappers.analysis.masks import ITERATIVE, RANDOM, SCOPES, SCORES, UNITS
from finetune_wrappers.analysis.units import Axes
from finetune_wrappers.models.model import Model, answer_logits
from finetune_wrappers.rules import COUNT, SIZE, Checked, Many, Rule, one_of, ruled, text
from finetune_wrappers.tasks.task import TARGETS, Task
from finetune_wrappers.training.evaluators import TEST_SEED, Accuracies, Metric
from finetune_wrappers.training.keys import key_for
from finetune_wrappers.training.methods import require_floats
from finetune_wrappers.types import InputError, Params, require

# The batch that scores weights is drawn apart from the test sets.
_SEED = TEST_SEED + 2
_PATH = text(f"{', '.join(SCOPES)} or a path as blocks_1/attn/value/kernel", r"[^\n]+")


def _names_axes(value: Any) -> bool:
  whole = isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], tuple)
  return whole and all(isinstance(axis, int) and not isinstance(axis, bool) for axis in value[1])


_AXES = Rule('the end of a path and axes, as ("query/kernel", (1, 2))', _names_axes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneSettings(Checked):
  """What is pruned, in which order, and on how many strings.

  Attributes:
    scores: orders of pruning; random pruning always runs beside them.
    scopes: which weights may be pruned, see `masks.scope_mask`.
    units: `weight` or `neuron`.
    neuron_axes: (path of an array or the end of it, axes that number its neurons) where these are not along the last of
      two axes: ("query/kernel", (1, 2)) for a kernel [D, H, K], ("weight", (0,)) for [outputs, inputs], and
      ("wte", ()) for an array without neurons. See `units`.
    ks: numbers of units at zero, 0 among them.
    iterative_every: units zeroed between two gradients of the score `gradient_iterative`.
    single_weights: how many weights are zeroed each alone, the highest gradient scores first.
    histogram_ks: K at which predictions are kept, pruned by the gradient score in the first scope.
    batch_size: strings whose loss gives the gradient.
    eval_size: strings of each test set.
    random_draws: of random pruning.
  """

  scores: tuple[str, ...] = ruled(Many(one_of(*SCORES, ITERATIVE)), ("gradient",))
  scopes: tuple[str, ...] = ruled(Many(_PATH), ("all",))
  units: tuple[str, ...] = ruled(Many(one_of(*UNITS)), ("weight",))
  neuron_axes: Axes = ruled(Many(_AXES, empty=True), ())
  ks: tuple[int, ...] = ruled(Many(COUNT), tuple(range(21)))
  iterative_every: int = ruled(SIZE, 1)
  single_weights: int = ruled(COUNT, 0)
  histogram_ks: tuple[int, ...] = ruled(Many(COUNT, empty=True), ())
  batch_size: int = ruled(SIZE, 1000)
  eval_size: int = ruled(SIZE, 500)
  random_draws: int = ruled(SIZE, 10)

  def __post_init__(self):
    super().__post_init__()
    require(0 in self.ks and any(self.ks), "ks", self.ks, "0 and larger whole numbers")
    if self.single_weights and not (1 in self.ks and "weight" in self.units):
      raise InputError("single_weights: needs ks with 1 and units with weight, for the random weight beside them")


def path_name(path: str, index: tuple[int, ...]) -> str:
  """A weight's name where nothing better is known: `out/kernel[2,0]`."""
  return f"{path}[{','.join(str(i) for i in index)}]"


@dataclasses.dataclass(frozen=True)
class Pruned:
  """What pruning one model brought back.

  Attributes:
    settings: of the pruning.
    metrics: names of the M metrics.
    curves: by (scope, unit) and score, float32 [K, M]; `random` is the mean over draws, `random_best` the best.
    singles: by scope, (path, index, metrics [M]) of each weight that was zeroed alone, in the order of the score.
    predictions: by C_Te, int [K, B], or [K, B, positions], the labels predicted at `histogram_ks` by the first scope's
      gradient score; a task with prompts is given that for O_PT.
  """

  settings: PruneSettings
  metrics: tuple[Metric, ...]
  curves: dict[tuple[str, str], dict[str, np.ndarray]]
  singles: dict[str, list[tuple[str, tuple[int, ...], np.ndarray]]]
  predictions: dict[int, np.ndarray]

  def curve(self, metric: str, score: str, **fields: Any) -> np.ndarray:
    """One metric by K, float32 [K], in the first scope with the first unit: `curve("acc_pt", "random", c_te=0)`.

    Args:
      metric: such as `acc_pt`.
      score: one of the settings' scores, `random` (the mean over draws) or `random_best`.
      **fields: of the metric, such as c_te.

    Raises:
      InputError: for a metric or a score that was not measured.
    """
    names = [(own.name, dict(own.fields)) for own in self.metrics]
    curves = self.curves[self.settings.scopes[0], self.settings.units[0]]
    require((metric, fields) in names, "curve", (metric, fields), ", ".join(map(str, names)))
    require(score in curves, "score", score, f"one of {', '.join(curves)}")
    return curves[score][:, names.index((metric, fields))]

  def rows(
    self, labels: Sequence[str] = (), weight_name: Callable[[str, tuple[int, ...]], str] = path_name
  ) -> list[dict[str, Any]]:
    """Rows of stage `prune` (by k, unit, score, scope; shares of predicted labels) and `prune_single`.

    Args:
      labels: symbol of each label; by default its number.
      weight_name: (path, index) to the name of a weight.
    """
    found = []
    for scope in self.settings.scopes:
      found += self.curve_rows(scope)
      for rank, (path, index, values) in enumerate(self.singles.get(scope, ()), start=1):
        fields = {"stage": "prune_single", "unit": "weight", "scope": scope, "score": "gradient", "k": 1, "rank": rank}
        found += self._rows(values, weight=weight_name(path, index), **fields)
    return [*found, *self._share_rows(labels)]

  def curve_rows(self, scope: str) -> list[dict[str, Any]]:
    """The metrics by unit, score and K of one scope."""
    return [
      row
      for unit in self.settings.units
      for score, values in self.curves[scope, unit].items()
      for k, at_k in zip(self.settings.ks, values, strict=True)
      for row in self._rows(at_k, stage="prune", unit=unit, scope=scope, k=k, score=score)
    ]

  def _rows(self, values: np.ndarray, **fields: Any) -> Iterator[dict[str, Any]]:
    for metric, value in zip(self.metrics, values.tolist(), strict=True):
      yield {"metric": metric.name, "value": value, **dict(metric.fields), **fields}

  def _share_rows(self, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Share of each predicted label (Fig. 59)."""
    fields = {"stage": "prune", "unit": "weight", "scope": self.settings.scopes[0], "score": "gradient"}
    for c_te, table in self.predictions.items():
      for k, answers in zip(self.settings.histogram_ks, table, strict=True):
        for label, count in zip(*(x.tolist() for x in np.unique(answers, return_counts=True)), strict=True):
          name = labels[label] if labels else str(label)
          share = {"metric": "predicted_share", "value": count / answers.size, "label": name}
          yield {**share, "k": k, "c_te": c_te, **fields}


class Pruner:
  """Scores weights on the pretraining task, zeroes the highest, answers the test sets.

  One set of compiled programs for all models of one shape.

  Args:
    model: what is pruned.
    task: gives strings and answers.
    settings: shared by all models.
  """

  def __init__(self, model: Model, task: Task, settings: PruneSettings):
    self._model, self._task, self._settings = model, task, settings
    sample = jax.jit(task.sample, static_argnums=1)
    batch = sample(jax.random.key(_SEED), settings.batch_size, 0.0)
    self._asked = task.question(batch, TARGETS.index("pt"))
    self._evaluator = Accuracies(settings.eval_size)
    self._tests = self._evaluator.test_sets(task)
    self._curve_program = jax.jit(self._curves, static_argnames=("unit", "scope"))
    self._single_program = jax.jit(self._single_weights, static_argnames="scope")
    self._prediction_program = jax.jit(self._predictions, static_argnames="scope")

  def __call__(self, params: Params, *, compiled: Params | None = None) -> Pruned:
    """Prunes one model.

    Args:
      params: its weights.
      compiled: the weights as compiled, for the scope `near_zero`.

    Raises:
      InputError: for a leaf that is not of floats, a scope that no parameter is in, `near_zero` without compiled
        weights, or neurons that cannot be told (`units.layers_of`).
    """
    require_floats(params)
    settings, curves, singles, predictions = self._settings, {}, {}, {}
    with self._model.numerics():
      for scope in settings.scopes:
        for unit in settings.units:
          by_score, random = jax.device_get(self._curve_program(params, compiled, unit=unit, scope=scope))
          curves[scope, unit] = {**by_score, RANDOM: random.mean(axis=0), "random_best": random.max(axis=0)}
        if settings.single_weights:
          places, values = jax.device_get(self._single_program(params, compiled, scope=scope))
          first = masks.first_units(places, settings.single_weights)
          singles[scope] = [(*unit, own) for unit, own in zip(first, values, strict=False)]
      if settings.histogram_ks:
        predictions = jax.device_get(self._prediction_program(params, compiled, scope=settings.scopes[0]))
    return Pruned(settings, self._evaluator.metrics(self._task), curves, singles, predictions)

  def _gradient(self, params: Params) -> Params:
    """dL/dw, L the loss of the O_PT answer."""
    tokens, labels = self._asked

    def loss(p):
      return self._task.output.losses(answer_logits(self._model, p, self._task, tokens), labels).mean()

    return jax.grad(loss)(params)

  def _evaluate(self, params: Params):
    return self._evaluator.measure(self._model, params, self._task, self._tests)

  def _gradient_order(self, params: Params, compiled: Params | None, scope: str) -> Params:
    scores = masks.weight_scores("gradient", params, grads=self._gradient(params))
    mask = masks.scope_mask(scope, params, compiled=compiled)
    return masks.ranks(masks.unit_scores(scores, scope=mask, unit="weight"), "weight")

  def _curves(self, params: Params, compiled: Params | None, *, unit: str, scope: str):
    """({score: metrics [K, M]}, random pruning's metrics [draws, K, M])."""
    settings = self._settings
    grads = self._gradient(params)
    mask = masks.scope_mask(scope, params, compiled=compiled)
    most, axes = max(settings.ks), settings.neuron_axes
    how = {"scope": mask, "unit": unit, "axes": axes}

    def places_of(score: str, key):
      if score == ITERATIVE:
        return masks.iterative_ranks(params, self._gradient, **how, count=most, every=settings.iterative_every)
      if score == RANDOM:
        return masks.ranks(masks.random_scores(key, **how), unit, most, axes=axes)
      scores = masks.weight_scores(score, params, grads=grads)
      return masks.ranks(masks.unit_scores(scores, **how, mean=score == "magnitude"), unit, most, axes=axes)

    def curve(score: str, key=None):
      return masks.curve(params, places=places_of(score, key), ks=jnp.asarray(settings.ks), measure=self._evaluate)

    keys = jax.random.split(key_for(jax.random.key(_SEED), "random"), settings.random_draws)
    return {score: curve(score) for score in settings.scores}, jax.lax.map(lambda key: curve(RANDOM, key), keys)

  def _single_weights(self, params: Params, compiled: Params | None, *, scope: str):
    """(order of pruning, metrics [W, M] with only the first, only the second, ... weight at zero)."""
    places = self._gradient_order(params, compiled, scope)

    def without(rank):
      return self._evaluate(jax.tree.map(lambda w, place: jnp.where(place == rank, 0.0, w), params, places))

    return places, jax.lax.map(without, jnp.arange(self._settings.single_weights))

  def _predictions(self, params: Params, compiled: Params | None, *, scope: str):
    """{C_Te: predicted labels [K, B]} for each of `histogram_ks`, asked for O_PT."""
    places = self._gradient_order(params, compiled, scope)
    ks = jnp.asarray(self._settings.histogram_ks)

    def labels_of(batch, p):
      tokens, _ = self._task.question(batch, TARGETS.index("pt"))
      return self._task.output.predicted(answer_logits(self._model, p, self._task, tokens))

    return {
      c_te: masks.curve(params, places=places, ks=ks, measure=functools.partial(labels_of, batch))
      for c_te, batch in self._tests.items()
    }


def prune(
  model: Model, params: Params, task: Task, settings: PruneSettings | None = None, *, compiled: Params | None = None
) -> Pruned:
  """Prunes one model; arguments and errors are those of `Pruner`, which compiles once for many."""
  return Pruner(model, task, settings or PruneSettings())(params, compiled=compiled)
