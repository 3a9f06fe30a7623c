"""Attention shares, the measures' pure functions and what their rows say, against plain Python and NumPy."""

import collections
import textwrap
import types

import jax
import numpy as np
import pytest
from tracr.rasp import rasp

from configs import tracr_common
from experiments.measures import behaviour, data, maps, readings, row_of
from experiments.models import Trained
from experiments.reports.names import short_name
from experiments.settings.tracr import TracrPlan
from finetune_wrappers.analysis import attention, observe
from finetune_wrappers.models.model import FunctionModel
from finetune_wrappers.models.tracr_model import TracrTransformer
from finetune_wrappers.reporting.rows import select
from finetune_wrappers.tasks.programs import ProgramTask
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.types import Batch, InputError, ModelOutput


def config_of(name, **task):
  config = tracr_common.tracr_config("some_figure", "smoke", measures=("maps",), report="maps")
  config.tasks = (name,)
  config[name].task.update(task)
  return config


@pytest.fixture(scope="module")
def counter():
  return TracrPlan(config_of("counter", num_letters=5, vocab_size=4, num_pads=1), "counter")


@pytest.fixture(scope="module")
def largest():
  """2nd against 4th largest of 5 among 10 letters."""
  task = {"num_letters": 5, "vocab_size": 10, "num_pads": 1, "rank_pt": 2, "rank_ft": 4, "q": 3}
  return TracrPlan(config_of("max_identifier", **task), "max_identifier")


@pytest.fixture(scope="module")
def small(counter):
  """(model, params with every bias set) that takes Counter's strings."""
  task = counter.task
  model = TracrTransformer(
    vocab_size=len(task.symbols), max_positions=task.length, width=8, num_layers=3, num_heads=2, key_size=3,
    mlp_hidden_size=5, answer_channels=tuple(range(task.num_labels)),
  )  # fmt: skip
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, task.length), int))["params"]
  generator = np.random.default_rng(0)
  return model, jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)


def trained(stage, small, **fields):
  model, params = small
  given = {"metrics": np.zeros((0, 4)), "losses": np.zeros(0), "steps": np.zeros(0, int), "diverged_step": -1}
  given |= {"directions": [], "labels": [], "device": "cpu", "compiled": params, "logs": {}}
  return Trained(stage=stage, model=model, params=params, **{**given, **fields})


def models_of(plan, load):
  return types.SimpleNamespace(plan=plan, load=load)


def spelled(task, batch):
  """The strings as letters, BOS as `<` and pads as `>`."""
  short = {"compiler_bos": "<", "compiler_pad": ">"}
  return ["".join(short.get(task.symbols[i], task.symbols[i]) for i in row) for row in np.asarray(batch.tokens)]


def test_outputs_are_numpy_and_the_models(small):
  model, params = small
  tokens = np.random.default_rng(1).integers(0, 6, (3, 7))
  output = attention.outputs(model, params, tokens)
  assert isinstance(output, ModelOutput)
  assert {type(leaf) for leaf in jax.tree.leaves(output)} == {np.ndarray}
  assert [leaf.shape for leaf in output.attention] == [(3, 2, 7, 7)] * 3
  with jax.default_matmul_precision("highest"):
    expected = model.apply({"params": params}, tokens)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max()), output, expected)


@pytest.mark.parametrize(("block", "attending"), [(0, 2), (1, 0), (2, 6)])
def test_attended_mass_is_the_loops(small, block, attending):
  tokens = np.random.default_rng(2).integers(0, 6, (4, 7))
  attended = np.random.default_rng(3).random((4, 7)) < 0.4
  output = attention.outputs(*small, tokens)
  expected = np.zeros(4)
  for string in range(4):
    for head in range(2):
      for position in range(7):
        if attended[string, position]:
          expected[string] += output.attention[block][string, head, attending, position] / 2
  np.testing.assert_allclose(
    attention.attended_mass(output, block, attending=attending, attended_BxT=attended), expected, rtol=1e-5
  )
  np.testing.assert_allclose(
    attention.attended_mass(output, block, attending=attending, attended_BxT=attended | True), 1.0, rtol=1e-5
  )


def test_several_answer_positions_count_alike(small):
  tokens, attended = np.random.default_rng(2).integers(0, 6, (4, 7)), np.random.default_rng(3).random((4, 7)) < 0.4
  output = attention.outputs(*small, tokens)
  one_by_one = [attention.attended_mass(output, 1, attending=position, attended_BxT=attended) for position in (2, 5)]
  np.testing.assert_allclose(
    attention.attended_mass(output, 1, attending=(2, 5), attended_BxT=attended), np.mean(one_by_one, axis=0), rtol=1e-5
  )


def test_a_model_that_gives_no_attention_or_no_hidden_units_is_refused_in_one_line(counter, small):
  tokens = Accuracies(4).test_sets(counter.task)[0].tokens
  marks, params = {"a": np.ones(tokens.shape, bool)}, {}
  bare = FunctionModel(lambda params, tokens: np.zeros((*tokens.shape, 3)))
  for reference, part in ((None, "attention"), (params, "hidden")):
    with pytest.raises(InputError, match=rf"\Amodel: gives no {part}[^\n]*\Z"):
      observe(bare, params, counter.task, tokens_BxT=tokens, marks=marks, reference=reference)
  rows = observe(*small, counter.task, tokens_BxT=tokens, marks=marks).rows()
  assert [(row["metric"], row["block"]) for row in rows] == [("attention_mass", block) for block in range(3)]
  assert [row["value"] for row in rows] == pytest.approx([1.0] * 3, rel=1e-5)


def test_the_modules_own_example_runs(counter, small):
  example = textwrap.dedent(attention.__doc__.partition("\n\n")[2])
  model, params = small
  letter_a, letter_b = (counter.task.symbols.index(letter) for letter in "ab")
  given = {"model": model, "params": params, "params_before": params, "task": counter.task, "jax": jax}
  exec(example, given | {"observe": observe, "letter_a": letter_a, "letter_b": letter_b}, found := {})
  output, position = attention.outputs(model, params, found["tokens"]), counter.task.answer_position
  expected = np.where(found["tokens"] == letter_b, output.attention[2][:, :, position].mean(1), 0).sum(1).mean()
  assert found["found"].mass["ft"][2] == pytest.approx(expected, rel=1e-5)
  assert found["found"].shift == dict.fromkeys(range(3), 0.0)


def test_label_distributions_of_a_task_without_a_correlation_and_with_several_answer_positions():
  answers = [("x", "y", "x"), ("y", "x", "y")]
  task = ProgramTask(
    lambda: rasp.tokens, lambda: rasp.Map(lambda token: {"x": "y", "y": "x"}[token], rasp.tokens), name="flip",
    vocab=("x", "y"), num_letters=3, sampler=lambda rng: answers[rng.integers(2)], max_strings=20,
  )  # fmt: skip
  config = collections.namedtuple("Config", "name setting training finetune")(
    "own", "own", *[types.SimpleNamespace()] * 2
  )
  config.training.eval_size, config.finetune.c_trs = 7, (0.0,)
  plan = types.SimpleNamespace(task=task, task_name="flip", config=config, bases=lambda: [None])
  rows = data.measure(models_of(plan, lambda stage: types.SimpleNamespace(labels=["x", "y"]))).rows
  assert {row["c_tr"] for row in rows if "c_tr" in row} == {0.0}
  # One string is held out and one trains; of three letters two are alike.
  shares = {(row["operand"], row["label"]): row["value"] for row in rows if "c_tr" in row}
  assert sorted(shares.values()) == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
  assert shares["pt", "x"] == shares["ft", "y"] != shares["pt", "y"]


def test_counters_letters_are_the_as_and_the_bs(counter):
  batch = Accuracies(20).test_sets(counter.task)[0]
  found = counter.task.marks(batch)
  for operand, letter in (("pt", "a"), ("ft", "b")):
    expected = [[sign == letter for sign in string] for string in spelled(counter.task, batch)]
    np.testing.assert_array_equal(found[operand], expected)


def test_max_identifiers_letters_are_the_two_answers(largest):
  batch = Accuracies(20).test_sets(largest.task)[0]
  found = largest.task.marks(batch)
  for operand, rank in (("pt", 2), ("ft", 4)):
    strings = spelled(largest.task, batch)
    expected = [[sign == sorted(string.strip("<>"))[rank - 1] for sign in string] for string in strings]
    np.testing.assert_array_equal(found[operand], expected)


def test_chosen_inputs_are_the_first_of_the_test_set_unless_the_config_names_some(counter):
  counter.config.maps.drawn = 3
  drawn = maps.chosen_inputs(counter)
  assert list(drawn) == [
    string.strip("<>") for string in spelled(counter.task, Accuracies(3).test_sets(counter.task)[0])
  ]
  own = TracrPlan(counter.config.copy_and_resolve_references(), "counter")
  own.config.maps.inputs.counter = ("abcda", "bbbbb")
  named = maps.chosen_inputs(own)
  tokens = Batch(np.stack(list(named.values())), None, None)
  assert list(named) == ["abcda", "bbbbb"] and spelled(own.task, tokens) == ["<abcda>", "<bbbbb>"]
  for bad in ("abcd", "abcde", "abcdab"):
    own.config.maps.inputs.counter = (bad,)
    with pytest.raises(InputError, match=r"\A[^\n]+\Z"):
      maps.chosen_inputs(own)


def test_guess_baselines_are_of_the_strings_that_the_accuracies_are_measured_on(counter):
  classes = [str(count) for count in range(counter.task.num_labels)]
  rows = data.rows_of_tests(counter, classes, 7, kind="prune")
  assert {row["stage"] for row in rows} == {"prune"}
  guesses = {(row["c_te"], row["operand"]): row["value"] for row in rows if row["metric"] == "guess_baseline"}
  for c_te, batch in Accuracies(7).test_sets(counter.task).items():
    for operand, labels in (("pt", batch.labels_pt), ("ft", batch.labels_ft)):
      counts = collections.Counter(np.asarray(labels).tolist())
      assert guesses.pop((c_te, operand)) == pytest.approx(max(counts.values()) / 7)
      fields = {"metric": "label_share", "c_te": c_te, "operand": operand}
      assert {row["label"]: row["value"] for row in select(rows, **fields)} == pytest.approx(
        {str(label): count / 7 for label, count in counts.items()}
      )
  assert not guesses


def test_mass_rows_are_the_mean_share_of_the_answers_attention(counter, small):
  plan = TracrPlan(counter.config.copy_and_resolve_references(), "counter")
  plan.config.seeds, plan.config.finetune.learning_rates, plan.config.finetune.c_trs = (0, 1), (0.1,), (1.0,)
  found = maps.measure(
    models_of(
      plan, lambda stage: trained(stage, small, diverged_step=3 * stage.seed if stage.kind == "finetune" else -1)
    )
  )
  batch = Accuracies(plan.config.maps.eval_size).test_sets(plan.task)[0]
  output, strings = attention.outputs(*small, batch.tokens), spelled(plan.task, batch)
  masses = [row for row in found.rows if row["metric"] == "attention_mass"]
  assert len(masses) == 3 * 3 * 2
  # Step 0 and step 3 diverged: the fine-tuned models are counted, without a value.
  assert [row["seed"] for row in masses if row["value"] is None] == [0] * 6 + [1] * 6
  masses = [row for row in masses if row["value"] is not None]
  assert {row["stage"] for row in masses} == {"compile"}
  uniform = {row["attended"]: row["value"] for row in found.rows if row["metric"] == "attention_uniform"}
  for operand, letter in (("pt", "a"), ("ft", "b")):
    assert uniform[operand] == pytest.approx(np.mean([sign == letter for string in strings for sign in string]))
  for row in masses:
    letter, maps_BxHxTxT = {"pt": "a", "ft": "b"}[row["attended"]], output.attention[row["block"]]
    shares = [
      sum(maps_BxHxTxT[b, :, 2, t].mean() for t, sign in enumerate(string) if sign == letter)
      for b, string in enumerate(strings)
    ]
    assert row["value"] == pytest.approx(np.mean(shares), rel=1e-4)
  shifts = [(row["stage"], row["value"]) for row in found.rows if row["metric"] == "activation_shift"]
  assert shifts == [("compile", 0)] * 3 + [("finetune", None)] * 6
  assert {key.split("/")[1] for key in found.arrays} == {"compiled"}


def test_activation_shift_is_relative_to_the_compiled_model(counter, small):
  plan = TracrPlan(counter.config.copy_and_resolve_references(), "counter")
  plan.config.seeds, plan.config.finetune.learning_rates, plan.config.finetune.c_trs = (4,), (0.1,), (1.0,)
  model, params = small
  moved = jax.tree.map(lambda leaf: 1.1 * leaf, params)
  other = {"compile": small, "finetune": (model, moved)}
  found = maps.measure(models_of(plan, lambda stage: trained(stage, other[stage.kind])))
  tokens = Accuracies(plan.config.maps.eval_size).test_sets(plan.task)[0].tokens
  before, after = attention.outputs(model, params, tokens), attention.outputs(model, moved, tokens)
  shifts = [row for row in found.rows if row["metric"] == "activation_shift" and row["stage"] == "finetune"]
  assert [row["block"] for row in shifts] == [0, 1, 2]
  for row in shifts:
    was, now = (output.hidden[row["block"]].astype(float) for output in (before, after))
    assert row["value"] == pytest.approx(np.linalg.norm(now - was) / np.linalg.norm(was), rel=1e-4)
    assert row["seed"] == 4
  names = {key.split("/")[1] for key in found.arrays}
  assert names == {"compiled", "FT 0.1, C_Tr 1"}


@pytest.fixture
def stages(counter):
  """A fine-tuning, the reFT that starts from it, and the control, of one seed."""
  plan = TracrPlan(counter.config.copy_and_resolve_references(), "counter")
  plan.config.seeds, plan.config.finetune.learning_rates, plan.config.finetune.c_trs = (7,), (0.1,), (0.5,)
  plan.config.finetune.targets, plan.config.reft.learning_rates = ("random",), (0.01,)
  return plan, plan.finetunes()[0], plan.refts()[0], plan.controls()[0]


def test_rows_carry_what_was_swept(stages):
  plan, finetune, reft, control = stages
  tuned = {"learning_rate": 0.1, "c_tr": 0.5, "target": "random"}
  reversed_ = {"reft_learning_rate": 0.01, "reft_c_tr": 0.0}
  assert plan.swept(finetune) == tuned
  assert plan.swept(reft) == {**tuned, **reversed_}
  assert plan.swept(control) == reversed_
  assert plan.swept(plan.compiled("ft")) == {"operand": "ft"}
  row = row_of(plan, reft, "acc_pt", 0.25, c_te=1)
  common_fields = {"experiment": "some_figure", "setting": "tracr", "task": "counter", "seed": 7, "step": 6}
  assert row == {**common_fields, "stage": "reft", "metric": "acc_pt", "value": 0.25, "c_te": 1, **tuned, **reversed_}
  named = row_of(plan, finetune, "acc_pt", 0.5, kind="prune", step=3, k=2)
  assert (named["stage"], named["step"], named["k"]) == ("prune", 3, 2)
  assert short_name(plan.swept(reft)) == "randFT 0.1, C_Tr 0.5, reFT 0.01"


def test_a_diverged_lane_has_null_values_from_there_on(stages, small):
  plan, finetune, *_ = stages
  metrics, steps = np.linspace(0, 1, 12).reshape(3, 4), np.array([0, 4, 6])
  lane = trained(finetune, small, steps=steps, metrics=metrics, losses=np.ones(3), diverged_step=5)
  plan.config.readings = (("default", "training.momentum", 0.9),)
  all_rows = [row for index in range(3) for row in behaviour._rows_at(plan, lane, index)]
  for rows in (all_rows, readings.measure(models_of(plan, lambda _: lane)).rows):
    assert {row["step"] for row in rows} >= {0, 6}
    for row in rows:
      assert (row["value"] is None) == (row["step"] == 6) == row.get("diverged", False)
  found = {(row["step"], row["metric"], row["c_te"]): row["value"] for row in all_rows if row["metric"] != "loss"}
  expected = [("acc_pt", 0), ("acc_ft", 0), ("acc_pt", 1), ("acc_ft", 1)]
  for index, at in enumerate((0, 4)):
    assert [found[(at, *metric)] for metric in expected] == pytest.approx(metrics[index].tolist())
