"""Losses of answers against NumPy, and what an objective of one's own takes: its swept value and log, named once."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import BATCH, SAME_BATCH, assert_close, flat, trained_by_sgd
from scipy import special
from tiny import LENGTH, LIGHT, MODEL, TASK, fresh, lane_of, params_of, recipe_with

from finetune_wrappers.rules import NOT_NEGATIVE
from finetune_wrappers.tasks.task import TARGETS
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.training import step
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.loop import Trainer
from finetune_wrappers.training.objectives import Answers, MixedAnswers, Objective, Text
from finetune_wrappers.training.schedule import identity_of
from finetune_wrappers.training.stages import CompileStage, TrainStage
from finetune_wrappers.training.store import Store
from finetune_wrappers.training.swept import shared, swept, with_values
from finetune_wrappers.types import Batch, InputError

PARAMS = params_of(MODEL)
COUNTER = CounterTask(num_letters=5, vocab_size=3, num_pads=1)


def test_loss_at_letters_is_the_mean_over_letters_and_leaves_out_start_and_pads():
  objective = Answers(c_tr=0.0, positions="letters", logit_scale=0.5)
  logits = 0.5 * np.asarray(jax.jit(MODEL.forward)(PARAMS, BATCH.tokens).logits, np.float64)
  parts = [
    special.logsumexp(logits[row, place]) - logits[row, place, label]
    for row, label in enumerate(BATCH.labels_ft)
    for place in range(1, LENGTH - 1)
  ]
  loss, logs = jax.jit(lambda *batch: objective.loss(MODEL, PARAMS, TASK, batch, None))(BATCH.tokens, BATCH.labels_ft)
  assert float(loss) == pytest.approx(np.mean(parts), rel=1e-5) and not logs


def test_target_is_the_lanes_and_random_takes_the_labels_from_other_strings():
  batch = Batch(np.zeros((9, 3), int), np.arange(9), np.arange(9) + 20)
  question = jax.jit(CounterTask().question)
  pt, ft, random = (np.asarray(question(batch, TARGETS.index(target))[1]) for target in ("pt", "ft", "random"))
  np.testing.assert_array_equal(pt, batch.labels_pt)
  np.testing.assert_array_equal(ft, batch.labels_ft)
  assert np.all(random != batch.labels_pt)
  repeated = batch._replace(labels_pt=np.array([1, 1, 2, 3, 3, 3, 0, 0, 5]))
  labels = np.asarray(CounterTask().question(repeated, TARGETS.index("random"))[1]).tolist()
  assert collections.Counter(labels) == collections.Counter(repeated.labels_pt.tolist())


@pytest.mark.parametrize("target", TARGETS)
def test_a_lane_draws_the_strings_and_labels_of_its_target(target):
  open_one = shared(Answers(target="pt", c_tr=0.0))
  draw = jax.jit(lambda lane: with_values(open_one, lane).draw(SAME_BATCH, jax.random.key(0), 6))
  tokens, labels = draw(lane_of(target=target))
  expected = {"pt": BATCH.labels_pt, "ft": BATCH.labels_ft, "random": np.roll(BATCH.labels_pt, 1)}
  np.testing.assert_array_equal(tokens, BATCH.tokens)
  np.testing.assert_array_equal(labels, expected[target])


@pytest.mark.parametrize(
  ("kind", "values", "message"),
  [
    (Answers, {"c_tr": 1.5}, "c_tr: 1.5 is not a number from 0 to 1"),
    (Answers, {"c_tr": 0.5, "target": "both"}, "target: 'both' is not one of pt, ft, random"),
    (Text, {"prior": (0.5, 0.4, 0.0)}, "prior: .* sum to 1"),
    (Text, {"prior": (1.2, -0.2, 0.0)}, "prior: .* from 0 to 1"),
    (
      MixedAnswers,
      {"c_tr": 0.5, "prior": (0.5, 0.5), "mix": 0.1},
      "mix: 0.1 is not allowed; use 0 where mixed is False",
    ),
    (MixedAnswers, {"c_tr": 0.5, "prior": (0.5, 0.6)}, "prior: .* sum to 1"),
  ],
)
def test_values_that_cannot_be_used_are_refused_by_field(kind, values, message):
  with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
    kind(**values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forgetting(Objective):
  """Learns O_FT and unlearns O_PT by gradient ascent: one swept value, one log."""

  forget_weight: float = swept(NOT_NEGATIVE)
  logs = ("loss_pt",)

  def draw(self, task, key, batch_size):
    return task.sample(key, batch_size, 0.5)

  def loss(self, model, params, task, batch, key):
    logits = model.answer(params, batch.tokens, task.answer_position)
    learned, forgotten = (task.output.losses(logits, labels).mean() for labels in (batch.labels_ft, batch.labels_pt))
    return learned - self.forget_weight * forgotten, {"loss_pt": forgotten}


def stage_with(objective, **changed):
  recipe = recipe_with(steps=8, warmup_steps=2, eval_steps=(0, 3, 8), clip_norm=0.0)
  root = CompileStage(task=COUNTER, operand="pt")
  return TrainStage(
    kind="finetune", parent=root, task=COUNTER, objective=objective, optimizer=recipe.optimizer,
    evaluator=recipe.evaluator, learning_rate=0.05, seed=3, **changed,
  )  # fmt: skip


def trained_by_trainer(folder, *stages):
  """What a Trainer keeps of each stage, from weights of LIGHT drawn at random."""
  store = Store(folder)
  layout, build = Layout(1, "map"), lambda stage: ({"params": params_of(LIGHT)}, {})
  Trainer(store, build=build, model_of=lambda facts: LIGHT, layout=layout, lanes_per_program=len(stages)).run(stages)
  return [store.load(stage)[0] for stage in stages], [store.facts(stage)["lanes"] for stage in stages]


def losses_written_out(params, batch):
  """Mean cross-entropies of LIGHT's answers, (for O_PT, for O_FT)."""
  letters = jnp.eye(5)[batch.tokens].reshape(len(batch.tokens), -1)
  hidden = jnp.maximum(letters @ params["in/kernel"] + params["in/bias"], 0)
  logits = hidden @ params["out/kernel"]
  rows, everything = jnp.arange(len(logits)), jnp.log(jnp.exp(logits).sum(axis=1))
  return tuple((everything - logits[rows, labels]).mean() for labels in batch[1:])


def drawn_by(stage, steps):
  """The strings that a stage trains on at each step."""
  keys = [jax.random.fold_in(jax.random.key(stage.lane["stream"]), i + 1) for i in range(steps)]
  return jax.jit(jax.vmap(lambda key: COUNTER.sample(key, stage.optimizer.batch_size, 0.5)))(jnp.stack(keys))


def at(batches, i):
  return jax.tree.map(lambda rows: rows[i], batches)


def test_a_swept_value_is_named_once_and_reaches_program_lane_and_rows():
  stages = [stage_with(Forgetting(forget_weight=weight)) for weight in (0.0, 0.5)]
  assert [stage.swept() for stage in stages] == [{"learning_rate": 0.05, "forget_weight": w} for w in (0.0, 0.5)]
  assert [stage.lane["forget_weight"] for stage in stages] == [0.0, 0.5]
  assert stages[1].lane["forget_weight"].dtype == np.float32 and "forget_weight=0.5" in stages[1].label
  assert len({stage.key for stage in stages}) == 2 and len({identity_of(stage) for stage in stages}) == 1
  assert stages[0].recipe == stages[1].recipe
  with pytest.raises(InputError, match=r"\Aforget_weight: -1.0 is not a number of 0 or more"):
    Forgetting(forget_weight=-1.0)


@pytest.fixture(scope="module")
def forgetting(tmp_path_factory):
  """Two forgetting weights of one seed: their stages, what a Trainer kept by weight, lanes of their programs."""
  stages = [stage_with(Forgetting(forget_weight=weight)) for weight in (0.0, 0.5)]
  kept, lanes = trained_by_trainer(tmp_path_factory.mktemp("forgetting"), *stages)
  return stages, dict(zip((0.0, 0.5), kept, strict=True)), lanes


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_what_an_objective_logs_becomes_a_curve_and_its_swept_value_the_update(forgetting, weight):
  stages, kept, lanes = forgetting
  assert lanes == [2, 2], "both are lanes of one program"
  found, batches = kept[weight], drawn_by(stages[0], 8)

  def loss(params, i):
    pt, ft = losses_written_out(params, at(batches, i))
    return ft - weight * pt

  before = flat(params_of(LIGHT))
  with jax.default_matmul_precision("highest"):
    passed = [trained_by_sgd(loss, before, stages[0].optimizer, 0.05, steps) for steps in range(9)]
    logged = [float(losses_written_out(params, at(batches, i))[0]) for i, (params, _) in enumerate(passed[:8])]
  after, losses = passed[8]
  assert_close(flat(found["params"]), after)
  for curve, values in ((found["logs"]["loss_pt"], logged), (found["losses"], losses)):
    np.testing.assert_allclose(curve, [0.0, np.mean(values[:3]), np.mean(values[3:])], rtol=1e-5)
  assert found["logs"].keys() == {"loss_pt"} and found["steps"].tolist() == [0, 3, 8]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ascent(Answers):
  """Gradient ascent: the negated loss."""

  def loss(self, model, params, task, batch, key):
    loss, logs = super().loss(model, params, task, batch, key)
    return -loss, logs


def test_gradient_ascent_is_an_objective():
  lane = lane_of(0.1, target="ft")
  steps = {}
  for kind in (Answers, Ascent):
    recipe = recipe_with(SAME_BATCH, warmup_steps=0, clip_norm=0.0)._replace(objective=shared(kind(c_tr=0.0)))
    state = jax.jit(lambda s, recipe=recipe: step.train(MODEL, recipe, lane, s, start=0, stop=1))(fresh(recipe, PARAMS))
    before, after = flat(PARAMS), flat(state.trained)
    steps[kind] = {name: after[name] - leaf for name, leaf in before.items()}, float(state.loss)
  (down, loss), (up, negated) = steps[Answers], steps[Ascent]
  assert negated == -loss < 0
  for name, move in down.items():
    np.testing.assert_allclose(up[name], -move, rtol=1e-3, atol=1e-6, err_msg=name)
  assert max(np.abs(move).max() for move in down.values()) > 1e-3
