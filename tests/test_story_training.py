"""Training on stories: losses against loops over tokens, batches after a stop, and the generation score."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from story_tasks import task_in

from finetune_wrappers.models.llama import Llama, LlamaConfig, build
from finetune_wrappers.tasks.stories.protocols import PROTOCOLS
from finetune_wrappers.tasks.stories.tokenizer import EOS
from finetune_wrappers.training import cohort, step
from finetune_wrappers.training.cohort import Cohort, lane_arrays
from finetune_wrappers.training.cohort_run import CohortRun
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.optim import AdamW
from finetune_wrappers.training.stages import GivenStage, TrainStage
from finetune_wrappers.training.stories import StoryScores, StoryText, token_losses
from finetune_wrappers.training.story_classifier import StoryClassifier
from finetune_wrappers.types import InputError

SIZES = {"blocks": 1, "heads": 2, "kv_heads": 1, "width": 16, "hidden": 24}
CONFIG = LlamaConfig(vocab_size=512, length=160, **SIZES)
MODEL = Llama(CONFIG)
CLASSIFIER = StoryClassifier(stories=40, story_length=24, steps=1, batch_size=4, blocks=1, width=8, eval_size=8)
SCORES = StoryScores(eval_size=5, prompts=0, classifier=CLASSIFIER)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
  return task_in(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def params():
  return jax.tree.map(lambda x: 4 * x if x.ndim > 1 else x, build(CONFIG, 0)[0]["params"])


def stage(task, protocol="filter", *, seed=0, microbatches=1, evaluator=SCORES, rate=1e-2):
  optimizer = AdamW.paper(6, eval_every=3, batch_size=4, microbatches=microbatches)
  return TrainStage(
    kind="finetune", parent=GivenStage(name="llama"), task=task, objective=StoryText(protocol=protocol),
    optimizer=optimizer, evaluator=evaluator, learning_rate=rate, seed=seed,
  )  # fmt: skip


@jax.jit
def _forward(params, row):
  return MODEL.forward(params, row[None]).logits[0]


def logits_of(params, row):
  """Float64 [n, V] by the uncached forward; what is behind a row of n tokens cannot be seen from there."""
  room = np.zeros(CONFIG.length, int)
  room[: len(row)] = row
  return np.asarray(_forward(params, room), np.float64)[: len(row)]


def by_hand(params, tokens, lengths):
  """(sum of the losses of every next token, their number), row by row without padding, by the uncached forward."""
  total, number = 0.0, 0
  for row, length in zip(np.asarray(tokens, int), lengths, strict=True):
    if length < 2:
      continue
    logits = logits_of(params, row[: length - 1])
    for position in range(length - 1):
      own = logits[position] - logits[position].max()
      total += np.log(np.exp(own).sum()) - own[row[position + 1]]
      number += 1
  return total, number


def batch_of(task, lengths=None):
  fed = StoryText(protocol="none").feed(task, {"protocol": PROTOCOLS.index("none"), "stream": 1}, 4, range(2))
  batch = jax.tree.map(lambda x: x[1], fed)
  if lengths is None:
    return batch
  targets = np.maximum(np.array(lengths) - 1, 0)
  return {**batch, "lengths": np.array(lengths, np.int32), "weights": np.full(4, 4 / targets.sum(), np.float32)}


@pytest.mark.parametrize("lengths", [None, [100, 2, 7, 30], [1, 9, 0, 129]])
def test_the_loss_is_the_mean_over_all_real_tokens(task, params, lengths):
  batch = batch_of(task, lengths)
  total, number = by_hand(params, batch["tokens"], batch["lengths"])
  assert number == np.maximum(batch["lengths"] - 1, 0).sum()
  loss, logs = StoryText(protocol="none").loss(MODEL, params, task, batch, None)
  np.testing.assert_allclose(loss, total / number, rtol=1e-5)
  assert logs == {}


def test_padding_does_not_count(task, params):
  batch = batch_of(task, [100, 2, 7, 30])
  changed = np.where(np.arange(129) < batch["lengths"][:, None], batch["tokens"], 77)
  assert (changed != batch["tokens"]).any()
  found = [token_losses(MODEL, params, task, tokens, batch["lengths"]) for tokens in (batch["tokens"], changed)]
  np.testing.assert_array_equal(*found)
  assert found[0].shape == (4, 128)
  assert ((np.asarray(found[0]) > 0) == (np.arange(128) < batch["lengths"][:, None] - 1)).all()


def test_every_token_counts_alike_in_however_many_parts(task, params):
  batch = batch_of(task)
  assert len({*batch["lengths"].tolist()}) > 2
  found = []
  for microbatches in (1, 4):
    recipe, key = stage(task, "none", microbatches=microbatches).recipe, jax.random.key(0)
    found.append(_GRADS(MODEL, recipe, trained=params, frozen={}, batch=batch, key=key))
  (loss, _), grads = found[0]
  for (own, _), other in found[1:]:
    np.testing.assert_allclose(own, loss, rtol=1e-5)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(grads))
    assert all(
      np.abs(a - b).max() < 1e-5 * largest for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.parametrize("packed", [False, True])
def test_fed_batches_are_the_tasks_own_of_those_steps(task, packed):
  task = dataclasses.replace(task, packed=packed, length=64, root=task.folder)
  lane = {"protocol": np.int32(PROTOCOLS.index("filter")), "stream": np.uint32(2**32 - 5)}
  fed = StoryText(protocol="none").feed(task, lane, 3, range(7, 40))
  own = task.batches("filter", batch_size=3, seed=2**32 - 5)
  for i, at in enumerate(range(7, 40)):
    tokens, lengths = own.at(at)
    assert (fed["tokens"][i] == tokens).all() and (fed["lengths"][i] == lengths).all()
    np.testing.assert_allclose((fed["weights"][i] * (lengths - 1)).sum(), 3, rtol=1e-6)
  none = StoryText(protocol="none").feed(task, lane, 3, range(0))
  assert jax.tree.map(lambda x: (x.shape[1:], x.dtype), none) == jax.tree.map(lambda x: (x.shape[1:], x.dtype), fed)
  assert len(none["tokens"]) == 0


_GRADS = jax.jit(step.loss_and_grads, static_argnums=(0, 1))


def run_of(stages, params, position=0, kept=()):
  program = Cohort(MODEL, stages[0].recipe, Layout(1, "map"))
  run = CohortRun(program, [str(i) for i in range(len(stages))], lane_arrays([own.lane for own in stages]))
  run.begin([params] * len(stages), position, kept)
  return run


def test_a_resumed_run_gets_the_very_batches_and_ends_equal(task, params, monkeypatch):
  monkeypatch.setattr(cohort, "_FED_STEPS", 2)
  asked, feed = [], StoryText.feed

  def watched(*args):
    fed = feed(*args)
    asked.extend((int(i), tokens.tobytes()) for i, tokens in zip(args[-1], fed["tokens"], strict=True))
    return fed

  monkeypatch.setattr(StoryText, "feed", watched)
  stages = [stage(task, "filter"), stage(task, "randomise", seed=1)]
  whole = run_of(stages, params)
  assert sum(whole.parts()) == 6
  batches, asked[:] = asked.copy(), []
  run = run_of(stages, params)
  parts = run.parts()
  while run.position < 4:
    next(parts)
    monkeypatch.setattr("finetune_wrappers.training.cohort_run._next_part", lambda *told: 1)
  assert 4 <= run.position < 6
  checkpoint = jax.tree.map(np.asarray, run.checkpoint())
  kept = [jax.tree.map(lambda x, i=i: x[i], checkpoint) for i in range(2)]
  again = run_of(stages, params, run.position, kept)
  assert sum(again.parts()) == 6 - run.position
  assert sorted(asked) == sorted(batches) and len(batches) == 12
  for one, other in zip(whole.results(), again.results(), strict=True):
    assert all(a.tobytes() == b.tobytes() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_lanes_of_one_program_draw_from_their_own_protocols(task, params):
  stages = [stage(task, protocol, rate=1e-2 * (1 + i)) for i, protocol in enumerate(["filter", "only_twist", "none"])]
  assert len({str(own.recipe) for own in stages}) == 1
  together = run_of(stages, params)
  assert sum(together.parts()) == 6
  found = together.results()
  for i, own in enumerate(stages):
    alone = run_of([own], params)
    assert sum(alone.parts()) == 6
    for a, b in zip(jax.tree.leaves(found[i]), jax.tree.leaves(alone.results()[0]), strict=True):
      np.testing.assert_array_equal(a, b)
  filtered, twisted = (np.asarray(task.cache("train", protocol=name).masks) & 2 for name in ("filter", "only_twist"))
  assert not filtered.any() and twisted.all()
  assert not np.array_equal(found[0]["losses"], found[1]["losses"])


def greedy(params, prompt, steps):
  """The likeliest tokens up to the end, each by a forward pass over all before it."""
  row = [int(token) for token in prompt]
  for _ in range(steps):
    token = int(np.argmax(logits_of(params, row)[-1]))
    if token == EOS:
      break
    row.append(token)
  return row[len(prompt) :]


def test_scores_are_those_of_naive_loops(task, params):
  scores = StoryScores(eval_size=5, prompts=6, classifier=CLASSIFIER, temperature=0.0)
  assert [metric.name for metric in scores.metrics(task)] == ["loss_feature", "loss_other", "generation_score"]
  tests = scores.test_sets(task)
  found = jax.jit(lambda params: scores.measure(MODEL, params, task, tests))(params)
  for value, featured in zip(found, (True, False), strict=False):
    total, number = by_hand(params, *task.held_out_rows(featured, 5))
    np.testing.assert_allclose(value, total / number, rtol=1e-5)
  stories = [greedy(params, row[:n], 24) for row, n in zip(*task.prompts(6), strict=True)]
  tokens, lengths = scores.generated(MODEL, params, task, tests["prompts"])
  assert [row[:n].tolist() for row, n in zip(np.asarray(tokens), lengths, strict=True)] == stories
  judged = [
    bool(CLASSIFIER.says(tests["classifier"], task, np.array([story]), np.array([len(story)]))[0]) for story in stories
  ]
  assert found[2] == np.float32(np.mean(judged))


def test_a_story_ends_where_eos_is_written(task, params):
  scores = StoryScores(eval_size=5, prompts=6, classifier=CLASSIFIER)
  tokens, lengths = map(np.asarray, scores.generated(MODEL, params, task, task.prompts(6)))
  later = np.arange(24) >= lengths[:, None]
  assert tokens.shape == (6, 24) and ((tokens == EOS) == later).all()
  again, _ = scores.generated(MODEL, params, task, task.prompts(6))
  assert (tokens == np.asarray(again)).all()  # every model is asked with the same draws


def test_without_prompts_there_is_no_score_and_no_classifier(task, params, monkeypatch):
  monkeypatch.setattr(StoryClassifier, "weights", None)
  tests = SCORES.test_sets(task)
  assert [metric.name for metric in SCORES.metrics(task)] == ["loss_feature", "loss_other"]
  assert SCORES.measure(MODEL, params, task, tests).shape == (2,)


def test_a_task_of_another_kind_is_one_line(task):
  with pytest.raises(InputError, match=r"\Atask: 'counter' is not allowed; use a StoryTask"):
    StoryText(protocol="none").check(type("Counter", (), {"name": "counter"})())
  StoryText(protocol="none").check(task)
  with pytest.raises(InputError, match=r"\Aprotocol: 'delete' is not one of none, filter"):
    StoryText(protocol="delete")


def test_a_model_with_fewer_tokens_than_the_task_is_one_line(task):
  small = Llama(dataclasses.replace(CONFIG, vocab_size=300))
  params = build(small.config, 0)[0]["params"]
  with pytest.raises(InputError, match=r"\Amodel: gives logits \[4, 128, 300\]; needs \[4, 128, V\], V at least 512\Z"):
    token_losses(small, params, task, jnp.zeros((4, 129), jnp.uint16), jnp.full(4, 9))
