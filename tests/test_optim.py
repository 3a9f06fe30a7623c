"""Schedule, clipping, momentum and noise against NumPy, and what an optimizer refuses."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from by_hand import assert_close, directions, share_of_the_rate
from scipy import stats
from tiny import LIGHT, params_of, recipe_with

from finetune_wrappers.rules import SHARE_BELOW_1
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.training import optim, step
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.objectives import Answers
from finetune_wrappers.training.optim import SGD
from finetune_wrappers.training.stages import InitStage, TrainStage
from finetune_wrappers.training.swept import swept
from finetune_wrappers.types import InputError


def sgd_with(**changed):
  return recipe_with(**changed).optimizer


@pytest.mark.parametrize(("warmup", "final"), [(0, 0.01), (7, 0.01), (24, 0.01), (7, 0.0), (7, 1.0)])
def test_schedule_rises_from_zero_and_falls_as_a_cosine(warmup, final):
  schedule = sgd_with(steps=25, warmup_steps=warmup, final_fraction=final).schedule()
  expected = [share_of_the_rate(i, 25, warmup, final) for i in range(26)]
  np.testing.assert_allclose([schedule(i) for i in range(26)], expected, atol=1e-6)


@pytest.mark.parametrize(("momentum", "dampening"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.9), (0.5, 0.2)])
@pytest.mark.parametrize("clip", [0.0, 4.0, 1e6])
def test_direction_clips_the_whole_gradient_and_adds_momentum(clip, momentum, dampening):
  generator = np.random.default_rng(0)
  sizes = (0.1, 3.0, 0.5, 20.0)  # of norms around 0.3 to 60, so that some are clipped at 4
  gradients = [{"a": s * generator.normal(size=(2, 3)), "b": s * generator.normal(size=3)} for s in sizes]
  gradients = [{name: leaf.astype(np.float32) for name, leaf in gradient.items()} for gradient in gradients]
  optimizer = sgd_with(clip_norm=clip, momentum=momentum, dampening=dampening).direction()
  state = optimizer.init(gradients[0])
  for gradient, expected in zip(gradients, directions(gradients, clip, momentum, dampening), strict=True):
    got, state = optimizer.update(gradient, state)
    assert_close(got, expected, rtol=1e-6)


def test_noise_is_gaussian_of_that_width_on_every_leaf_and_independent_between_leaves():
  params = {"zeros": np.zeros((60, 70), np.float32), "ones": np.ones((60, 70), np.float32), "one": np.float32([5.0])}
  noisy = optim.add_noise(jax.random.key(0), params, 0.25)
  noise = {name: (np.asarray(noisy[name]) - params[name]).ravel() for name in params}
  for name in ("zeros", "ones"):
    assert stats.kstest(noise[name], stats.norm(scale=0.25).cdf).pvalue > 1e-3
  assert noise["one"] != 0
  assert abs(np.corrcoef(noise["zeros"], noise["ones"])[0, 1]) < 0.06  # four standard errors


def test_noise_is_reproducible_by_key_and_none_where_its_width_is_zero():
  params = {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 2), np.float32)}
  first, again, other = (optim.add_noise(jax.random.key(seed), params, 0.1) for seed in (0, 0, 1))
  silent = optim.add_noise(jax.random.key(0), params, 0.0)
  for name, leaf in params.items():
    np.testing.assert_array_equal(first[name], again[name])
    np.testing.assert_array_equal(silent[name], leaf)
    assert np.all(np.asarray(first[name]) != other[name])


@pytest.mark.parametrize(
  ("field", "bad", "allowed"),
  [
    ("steps", 0, "from 1 to"),
    ("batch_size", 0, "from 1 to"),
    ("microbatches", 0, "from 1 to"),
    ("microbatches", 4, r"a divisor of batch_size \(6\)"),
    ("eval_size", -1, "from 1 to"),
    ("logit_scale", 0.0, "above 0"),
    ("warmup_steps", -1, "from 0 to"),
    ("warmup_steps", 20, r"less than steps \(20\)"),  # would leave the cosine no step
    ("clip_norm", -1.0, "0 or more"),
    ("clip_norm", float("inf"), "0 or more"),
    ("momentum", 1.0, "from 0, below 1"),
    ("momentum", -0.1, "from 0, below 1"),
    ("dampening", 1.0, "from 0, below 1"),
    ("final_fraction", 1.5, "from 0 to 1"),
    ("trained", "no biases", "all, matrices, no_embeddings or a path"),
    ("positions", "all", "answer, letters"),
    ("eval_steps", (), "at least one"),
    ("eval_steps", (0, 10), "the last 20"),
    ("eval_steps", (10, 5, 20), "rising"),
    ("eval_steps", (10, 10, 20), "each value once"),
    ("eval_steps", (-1, 20), "from 0"),
  ],
)
def test_values_that_cannot_be_used_are_refused_by_field(field, bad, allowed):
  changed = {"steps": bad, "eval_steps": (20,)} if field == "steps" else {field: bad}
  with pytest.raises(InputError, match=rf"\A{field}: [^\n]*{allowed}[^\n]*\Z"):
    recipe_with(**changed)


def test_dampening_without_momentum_is_refused():
  with pytest.raises(InputError, match=r"\Adampening: 0.5 is not allowed; use 0 without momentum\Z"):
    sgd_with(momentum=0.0, dampening=0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heavy(SGD):
  """SGD whose momentum is swept."""

  velocity: float = swept(SHARE_BELOW_1)

  def rule(self):
    return optax.trace(decay=self.velocity)


def test_a_swept_value_of_an_optimizer_reaches_the_program():
  """Plain SGD with the same momentum makes the same step."""
  task = CounterTask(num_letters=5, vocab_size=3, num_pads=1)
  plain = recipe_with(task, momentum=0.5)
  values = {field.name: getattr(plain.optimizer, field.name) for field in dataclasses.fields(plain.optimizer)}
  stage = TrainStage(
    kind="finetune", parent=InitStage(model=0, seed=0), task=task, objective=Answers(c_tr=0.5, target="ft"),
    optimizer=Heavy(**values, velocity=0.5), evaluator=Accuracies(8), learning_rate=0.1, seed=0,
  )  # fmt: skip
  assert stage.swept()["velocity"] == stage.lane["velocity"] == 0.5
  params, lane = params_of(LIGHT), dict(stage.lane)
  states = [
    step.train(LIGHT, r, lane, step.init_state(r, params, lane), start=0, stop=3) for r in (plain, stage.recipe)
  ]
  jax.tree.map(np.testing.assert_array_equal, *(state.trained for state in states))
