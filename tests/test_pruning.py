"""Score, prune, evaluate on a plain function of a linear readout, against NumPy."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from finetune_wrappers.analysis import Pruner, PruneSettings, masks, prune, pruning
from finetune_wrappers.models.model import FunctionModel
from finetune_wrappers.tasks.task import Numerical
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.types import InputError


class Numbers(CounterTask):
  """Counter with its count as a number."""

  output = Numerical((0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0))


SIZES = {"num_letters": 5, "vocab_size": 3, "num_pads": 1}
TASKS = [CounterTask(**SIZES), Numbers(**SIZES)]
LABELS, WIDTH = 7, 5 * 7  # token ids times positions
SETTINGS = PruneSettings(
  scores=("gradient", "magnitude"), scopes=("all", "out/kernel"), units=("weight", "neuron"), ks=(0, 1, 3, 400),
  single_weights=3, histogram_ks=(0, 2), batch_size=64, eval_size=40, random_draws=4,
)  # fmt: skip
traces = []


def linear(params, tokens):
  traces.append(tokens.shape)
  flat = jax.nn.one_hot(tokens, 5).reshape(len(tokens), 1, -1)
  logits = flat @ params["out"]["kernel"] + params["out"]["bias"]
  return jnp.broadcast_to(logits, (*tokens.shape, logits.shape[-1]))


MODEL = FunctionModel(linear, precision="highest")


def params_of(seed):
  generator = np.random.default_rng(seed)
  return {"out": {"kernel": generator.normal(size=(WIDTH, LABELS)), "bias": generator.normal(size=LABELS)}}


def by_hand(weights, tokens):
  """Logits from weights [WIDTH + 1, LABELS], the bias first as in the order of the pytree, and the inputs."""
  inputs = np.eye(5)[np.asarray(tokens)].reshape(len(tokens), -1)
  inputs = np.concatenate([np.ones((len(tokens), 1)), inputs], axis=1)
  return inputs @ weights, inputs


def predicted(task, logits):
  if task is TASKS[1]:
    return np.abs(logits[:, :1] - np.arange(LABELS)).argmin(axis=1)
  return logits.argmax(axis=1)


def gradient(task, weights):
  batch = jax.jit(task.sample, static_argnums=1)(jax.random.key(pruning._SEED), SETTINGS.batch_size, 0.0)
  logits, inputs = by_hand(weights, batch.tokens)
  labels = np.asarray(batch.labels_pt)
  if task is TASKS[1]:
    slope = np.zeros_like(logits)
    slope[:, 0] = 2 * (logits[:, 0] - labels)
  else:
    slope = special.softmax(logits, axis=1) - np.eye(LABELS)[labels]
  return inputs.T @ slope / len(labels)


def accuracies(task, weights):
  found = []
  for batch in Accuracies(SETTINGS.eval_size).test_sets(task).values():
    answers = predicted(task, by_hand(weights, batch.tokens)[0])
    found += [np.mean(answers == labels) for labels in (batch.labels_pt, batch.labels_ft)]
  return found


def without(weights, cut):
  return np.where(np.isin(np.arange(weights.size), cut).reshape(weights.shape), 0.0, weights)


@pytest.fixture(scope="module", params=TASKS, ids=["categorical", "numerical"])
def found(request):
  """(task, weights [WIDTH + 1, LABELS], what pruning says)."""
  params = params_of(0)
  weights = np.concatenate([params["out"]["bias"][None], params["out"]["kernel"]])
  return request.param, weights, prune(MODEL, params, request.param, SETTINGS)


@pytest.mark.parametrize("scope", SETTINGS.scopes)
@pytest.mark.parametrize("score", SETTINGS.scores)
def test_curves_of_weights_are_numpys(found, scope, score):
  task, weights, pruned = found
  scores = weights * gradient(task, weights) if score == "gradient" else np.abs(weights)
  allowed = np.ones_like(weights, bool)
  allowed[0] = scope == "all"
  order = sorted(np.flatnonzero(allowed), key=lambda i: -scores.ravel()[i])
  expected = [accuracies(task, without(weights, order[:k])) for k in SETTINGS.ks]
  np.testing.assert_allclose(pruned.curves[scope, "weight"][score], expected, atol=1e-6)


def test_curves_of_neurons_are_numpys(found):
  task, weights, pruned = found
  order = np.argsort(-(weights * gradient(task, weights)).sum(axis=0), kind="stable")
  expected = [accuracies(task, np.where(np.isin(np.arange(LABELS), order[:k]), 0.0, weights)) for k in SETTINGS.ks]
  np.testing.assert_allclose(pruned.curves["all", "neuron"]["gradient"], expected, atol=1e-6)


def test_random_pruning_stands_beside_with_its_mean_and_best(found):
  task, weights, pruned = found
  for values in pruned.curves.values():
    assert list(values) == ["gradient", "magnitude", "random", "random_best"]
    np.testing.assert_allclose([curve[0] for curve in values.values()], [accuracies(task, weights)] * 4, atol=1e-6)
    assert (values["random_best"] >= values["random"] - 1e-6).all()
  neurons = pruned.curves["all", "neuron"]
  assert (neurons["random_best"] > neurons["random"] + 1e-6).any()


def test_single_weights_and_predictions_are_numpys(found):
  task, weights, pruned = found
  order = np.argsort(-(weights * gradient(task, weights)).ravel(), kind="stable")
  for number, (path, index, values) in enumerate(pruned.singles["all"]):
    row, column = np.unravel_index(order[number], weights.shape)
    assert (path, index) == (("out/kernel", (row - 1, column)) if row else ("out/bias", (column,)))
    np.testing.assert_allclose(values, accuracies(task, without(weights, order[number : number + 1])), atol=1e-6)
  for c_te, batch in Accuracies(SETTINGS.eval_size).test_sets(task).items():
    for k, answers in zip((0, 2), pruned.predictions[c_te], strict=True):
      np.testing.assert_array_equal(answers, predicted(task, by_hand(without(weights, order[:k]), batch.tokens)[0]))


class Prompted(CounterTask):
  """Counter whose first token says which letter is counted; strings ask for O_FT unless they are asked otherwise."""

  prompted = True

  def sample(self, key, batch_size, c_tr):
    batch = super().sample(key, batch_size, c_tr)
    return batch._replace(tokens=batch.tokens.at[:, 0].set(1))

  def question(self, batch, target):
    return batch.tokens.at[:, 0].set(target), (batch.labels_pt, batch.labels_ft)[target]


def test_predictions_answer_the_prompt_for_o_pt():
  task, params = Prompted(**SIZES), params_of(2)
  weights = np.concatenate([params["out"]["bias"][None], params["out"]["kernel"]])
  weights[1:6] *= 20  # the prompt decides the answer
  params = {"out": {"kernel": weights[1:], "bias": weights[0]}}
  plain = dataclasses.replace(SETTINGS, ks=(0, 1), single_weights=0, histogram_ks=(0,), scopes=("all",))
  found = prune(MODEL, params, task, plain).predictions
  for c_te, batch in Accuracies(SETTINGS.eval_size).test_sets(CounterTask(**SIZES)).items():
    asked = {name: np.concatenate([np.full((len(batch.tokens), 1), place), batch.tokens[:, 1:]], axis=1)
             for place, name in enumerate(("pt", "ft"))}  # fmt: skip
    answers = {name: by_hand(weights, tokens)[0].argmax(axis=1) for name, tokens in asked.items()}
    np.testing.assert_array_equal(found[c_te][0], answers["pt"])
    assert (answers["pt"] != answers["ft"]).any()


def test_rows_say_everything_once(found):
  pruned, names = found[2], list("ABCDEFG")
  rows = pruned.rows(names)
  fields = [tuple(sorted((name, value) for name, value in row.items() if name != "value")) for row in rows]
  assert len(set(fields)) == len(rows)
  curves = [row for row in rows if "rank" not in row and "label" not in row]
  assert len(curves) == 2 * 2 * 4 * 4 * 4  # scopes, units, scores, ks, metrics
  (row,) = [
    row for row in curves
    if (row["scope"], row["unit"], row["score"], row["k"], row["metric"], row["c_te"])
    == ("all", "neuron", "magnitude", 3, "acc_ft", 1)
  ]  # fmt: skip
  assert row["value"] == pruned.curves["all", "neuron"]["magnitude"][2, 3] and row["stage"] == "prune"
  singles = [row for row in rows if row["stage"] == "prune_single"]
  assert [row["rank"] for row in singles] == [1] * 4 + [2] * 4 + [3] * 4 + [1] * 4 + [2] * 4 + [3] * 4
  assert singles[0]["weight"] == pruning.path_name(*pruned.singles["all"][0][:2]) and "[" in singles[0]["weight"]
  for c_te in (0, 1):
    shares = {r["label"]: r["value"] for r in rows if "label" in r and (r["c_te"], r["k"]) == (c_te, 2)}
    expected = {name: np.mean(pruned.predictions[c_te][1] == label) for label, name in enumerate(names)}
    assert shares == {name: pytest.approx(share) for name, share in expected.items() if share}


def test_another_model_of_the_shape_is_pruned_without_compiling_again():
  pruner = Pruner(MODEL, TASKS[0], dataclasses.replace(SETTINGS, scopes=("all",), units=("weight",)))
  first = pruner(params_of(0))
  traces.clear()
  second = pruner(params_of(1))
  assert not traces and (second.curves["all", "weight"]["gradient"] != first.curves["all", "weight"]["gradient"]).any()


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"ks": (1, 2)}, r"ks: \(1, 2\) is not allowed; use 0 and larger"),
    ({"ks": (0,)}, r"ks: \(0,\)"),
    ({"ks": [0, 1]}, "ks: .* is not a tuple"),
    ({"ks": (0, -1)}, "ks: -1 is not a whole number"),
    ({"scores": ("luck",)}, "scores: 'luck' is not one of gradient, gradient_abs, magnitude, gradient_iterative"),
    ({"neuron_axes": (("kernel", 1),)}, r"neuron_axes: \('kernel', 1\) is not the end of a path and axes, as "),
    ({"neuron_axes": ("kernel", (1,))}, "neuron_axes: 'kernel' is not the end of a path"),
    ({"units": ("head",)}, "units: 'head' is not one of weight, neuron"),
    ({"scopes": ()}, "scopes: empty"),
    ({"random_draws": 0}, "random_draws: 0"),
    ({"single_weights": 1, "ks": (0, 2)}, "single_weights: needs ks with 1 and units with weight"),
  ],
)
def test_settings_that_cannot_be_are_one_line(fields, message):
  with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
    PruneSettings(**fields)


def test_a_curve_that_was_not_measured_and_a_leaf_that_is_no_float_are_one_line(found):
  pruned = found[2]
  assert pruned.curve("acc_ft", "random", c_te=1).tolist() == pruned.curves["all", "weight"]["random"][:, 3].tolist()
  with pytest.raises(
    InputError, match=r"\Acurve: \('acc_pt', {}\) is not allowed; use \('acc_pt', {'c_te': 0}\), .*\Z"
  ):
    pruned.curve("acc_pt", "random")
  with pytest.raises(InputError, match=r"\Ascore: 'luck' is not allowed; use one of gradient, magnitude, random, .*\Z"):
    pruned.curve("acc_pt", "luck", c_te=0)
  with pytest.raises(InputError, match=r"\Aparams out/step: 'int32' is not allowed; use floats; [^\n]*\Z"):
    prune(MODEL, {"out": {**params_of(0)["out"], "step": np.int32(3)}}, TASKS[0], SETTINGS)


def test_what_a_model_does_not_have_is_one_line():
  fast = dataclasses.replace(SETTINGS, single_weights=0, histogram_ks=())
  for scope, message in (
    ("blocks_1", "scope: 'blocks_1' is not one of .* out/bias"),
    ("near_zero", "scope: near_zero"),
  ):
    with pytest.raises(InputError) as caught:
      prune(MODEL, params_of(0), TASKS[0], dataclasses.replace(fast, scopes=(scope,)))
    assert re.fullmatch(f"{message}.*", str(caught.value))
  with pytest.raises(InputError, match=r"\Aunit: neuron needs an array of two axes or more"):
    masks.unit_scores({"w": np.ones(3)}, scope={"w": np.ones(3, bool)}, unit="neuron")
