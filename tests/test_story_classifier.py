"""The judge of stories: the same for a story alone and among others, and what is kept of it."""

import dataclasses
import hashlib
import io
import pickle

import jax
import numpy as np
import optax
import pytest
from story_tasks import MAKER, task_in

from finetune_wrappers.training import story_classifier as module
from finetune_wrappers.training.story_classifier import LabelAccuracy, StoryClassifier, StoryLabels, labels_of
from finetune_wrappers.types import InputError

LENGTH = 30
SETTINGS = StoryClassifier(stories=40, story_length=LENGTH, steps=3, batch_size=4, blocks=2, width=8, eval_size=50)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
  return task_in(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def weights(task):
  """Drawn so large that stories differ in what is said of them."""
  generator = np.random.default_rng(0)
  return jax.tree.map(lambda x: generator.normal(size=x.shape).astype(np.float32), SETTINGS.weights(task))


def logits_by_hand(model, params, story, room=LENGTH):
  """Both labels' logits at the last token; before the story stand zeros."""
  row = np.zeros((1, room), int)
  row[0, room - len(story) :] = story
  return np.asarray(model.forward(params, row).logits[0, -1, :2])


def test_it_says_of_each_story_what_the_model_says_of_it_alone(task, weights):
  generator = np.random.default_rng(0)
  lengths = np.array([1, LENGTH, 2, 29, *generator.integers(1, LENGTH, 100)])
  tokens = generator.integers(3, 512, (104, LENGTH)).astype(np.uint16)
  model = SETTINGS.model(task)
  alone = jax.jit(jax.vmap(lambda row, weights: model.forward(weights, row[None]).logits[0, -1, :2], (0, None)))
  rows = np.zeros((104, LENGTH), int)
  for row, story, length in zip(rows, tokens, lengths, strict=True):
    row[LENGTH - length :] = story[:length]
  found = np.asarray(alone(rows, weights))
  # The last norm's bias is moved until one half of the stories has the feature.
  apart = weights["head"]["kernel"][:, 1] - weights["head"]["kernel"][:, 0]
  moved = np.median(found[:, 1] - found[:, 0]) / (apart @ apart) * apart
  weights = {**weights, "norm": {**weights["norm"], "bias": weights["norm"]["bias"] - moved}}
  found = np.asarray(alone(rows, weights))
  expected = found[:, 1] > found[:, 0]
  assert 10 < expected.sum() < 94 and np.abs(found[:, 1] - found[:, 0]).min() > 1e-5
  said = SETTINGS.says(weights, task, tokens, lengths)
  assert said.dtype == bool and np.asarray(said).tolist() == expected.tolist()
  # Behind the end may stand anything, in rows as short as the longest story.
  tokens[np.arange(LENGTH) >= lengths[:, None]] = 500
  short = lengths <= 20
  said = jax.jit(lambda *stories: SETTINGS.says(weights, task, *stories))(tokens[short, :20], lengths[short])
  assert np.asarray(said).tolist() == expected[short].tolist()


def test_its_loss_is_of_the_labels_at_the_ends(task, weights):
  objective = StoryLabels(stories=40, story_length=LENGTH)
  fed = objective.feed(task, {"stream": np.uint32(5)}, 4, range(3, 6))
  later = objective.feed(task, {"stream": np.uint32(5)}, 4, range(5, 6))
  assert all((a[2:] == b).all() for a, b in zip(jax.tree.leaves(fed), jax.tree.leaves(later), strict=True))
  other = objective.feed(task, {"stream": np.uint32(6)}, 4, range(3, 6))
  assert (other["tokens"] != fed["tokens"]).any()
  none = objective.feed(task, {"stream": np.uint32(5)}, 4, range(0))
  assert [x.shape for x in jax.tree.leaves(none)] == [(0, *x.shape[1:]) for x in jax.tree.leaves(fed)]
  stories = [
    task.tokenizer.decode(row[:n], continues=True)
    for row, n in zip(*(fed[k][0] for k in ("tokens", "lengths")), strict=True)
  ]
  labels = []
  for story in stories:
    (record,) = [
      record for record in map(lambda i: MAKER.record("train", i), range(40)) if record.story.startswith(story)
    ]
    labels.append("Twist" in record.features)
  assert fed["labels"][0].tolist() == labels
  batch = jax.tree.map(lambda x: x[0], fed)
  model = SETTINGS.model(task)
  losses = [
    optax.softmax_cross_entropy_with_integer_labels(logits_by_hand(model, weights, row[:n]), label)
    for row, n, label in zip(batch["tokens"].astype(int), batch["lengths"], batch["labels"], strict=True)
  ]
  loss, _ = objective.loss(model, weights, task, batch, None)
  np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)


def test_accuracy_is_the_share_of_right_labels(task, weights):
  masks = task.stories_of("test", longest=LENGTH, size=50)[2]
  assert (labels_of(task, masks) == ["Twist" in MAKER.record("test", i).features for i in range(50)]).all()
  evaluator = LabelAccuracy(story_length=LENGTH, eval_size=50)
  tests = evaluator.test_sets(task)
  valid = np.asarray(SETTINGS.says(weights, task, *tests[:2]))
  held = np.array(["Twist" in MAKER.record("valid", i).features for i in range(50)])
  (measured,) = evaluator.measure(SETTINGS.model(task), weights, task, tests)
  np.testing.assert_allclose(measured, (valid == held).mean(), rtol=1e-6)


def test_it_learns_a_feature_that_a_word_gives_away(tmp_path):
  task = task_in(tmp_path, feature="Dialogue", stories=600, held_out=200)
  settings = dataclasses.replace(
    SETTINGS, stories=600, story_length=64, steps=60, batch_size=32, learning_rate=1e-2, width=16, eval_size=200
  )
  tokens, lengths, masks = task.stories_of("test", longest=64, size=200)
  said, labels = settings.says(settings.weights(task), task, tokens, lengths), labels_of(task, masks)
  assert np.mean(np.asarray(said) == labels) > 0.95 > max(labels.mean(), 1 - labels.mean())


def test_weights_are_trained_once_and_read_back_to_the_bit(task, monkeypatch):
  told = []
  first = SETTINGS.weights(task, lambda *args: told.append(args))
  monkeypatch.setattr(module, "train", None)
  again = SETTINGS.weights(task_in(task.folder))
  assert jax.tree.structure(first) == jax.tree.structure(again)
  assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True))
  # Other settings, of either, are other weights.
  monkeypatch.setattr(module, "train", _trains)
  for changed in ({"steps": 4}, {"stories": 41}, {"width": 12}, {"learning_rate": 2e-3}):
    with pytest.raises(_Trains):
      dataclasses.replace(SETTINGS, **changed).weights(task)
  for changed in ({"feature": "Conflict"}, {"stories": 61}, {"vocab_size": 500}):
    with pytest.raises(_Trains):
      SETTINGS.weights(task_in(task.folder, **changed))


class _Trains(Exception):
  pass


def _trains(*args, **options):
  raise _Trains


def test_damaged_weights_are_one_line_and_nothing_is_unpickled(task, tmp_path):
  own = task_in(tmp_path)
  (tmp_path / "none").mkdir()
  SETTINGS.weights(task)
  (kept,) = task.folder.glob("classifier-*.bin")
  data, path = kept.read_bytes(), tmp_path / kept.name
  generator = np.random.default_rng(0)
  flipped = [bytearray(data) for _ in range(40)]
  for i, one in enumerate(flipped):
    one[i if i < 32 else generator.integers(len(data))] ^= 1 << int(generator.integers(8))
  for bad in (b"", data[:31], data[:32], data[:100], data[:-1], data + b"\0", data[32:], *map(bytes, flipped)):
    path.write_bytes(bad)
    with pytest.raises(InputError, match=rf"\A{path}: is damaged; move it away to train the classifier again\Z"):
      SETTINGS.weights(own)
  path.write_bytes(data)
  assert jax.tree.structure(SETTINGS.weights(own)) == jax.tree.structure(SETTINGS.weights(task))
  path.unlink()
  path.mkdir()
  with pytest.raises(InputError, match=rf"\A{path}: cannot be read \(Is a directory\)\Z"):
    SETTINGS.weights(own)


class _Told:
  def __reduce__(self):
    return (pytest.fail, ("unpickled",))


def test_a_file_with_a_valid_checksum_is_not_unpickled_either(task, tmp_path):
  own = task_in(tmp_path)
  SETTINGS.weights(task)
  (kept,) = task.folder.glob("classifier-*.bin")
  path = tmp_path / kept.name
  buffer = io.BytesIO()
  np.savez(buffer, **{f"arr_{i}": np.array([_Told()], object) for i in range(99)}, allow_pickle=True)
  shapes = io.BytesIO()
  np.savez(shapes, *[np.zeros(3, np.float32)] * 99)
  for data in (buffer.getvalue(), pickle.dumps(_Told()), shapes.getvalue(), b"no archive", b""):
    path.write_bytes(hashlib.sha256(data).digest() + data)
    with pytest.raises(InputError, match=rf"\A{path}: is damaged; move it away to train the classifier again\Z"):
      SETTINGS.weights(own)


def test_a_classifier_that_diverges_is_not_kept(tmp_path):
  task = task_in(tmp_path)
  with pytest.raises(
    InputError, match=r"\Alearning_rate: the classifier diverged at step \d+ with 1e\+30; use a lower"
  ):
    dataclasses.replace(SETTINGS, learning_rate=1e30).weights(task)
  assert not [*tmp_path.glob("classifier-*")]


@pytest.mark.parametrize(("field", "value"), [("width", 6), ("width", 0), ("stories", 0), ("story_length", 0)])
def test_settings_that_cannot_be_are_named(field, value):
  with pytest.raises(InputError, match=rf"\A{field}: {value} is not"):
    dataclasses.replace(SETTINGS, **{field: value})
