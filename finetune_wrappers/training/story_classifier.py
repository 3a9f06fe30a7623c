"""A classifier that says whether a story has the feature, trained on labelled stories: the generation score's judge.

The paper asked a paid service, of 92 % held-out accuracy. This one runs offline: a small GPT that reads the story,
without its instruction, and answers at its end.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from finetune_wrappers.files import write_atomically
from finetune_wrappers.models import gpt
from finetune_wrappers.models.model import Model
from finetune_wrappers.rules import ABOVE_0, SIZE, STEPS, Checked, ruled, whole
from finetune_wrappers.tasks.stories.records import FEATURES
from finetune_wrappers.tasks.stories.task import StoryTask
from finetune_wrappers.training.evaluators import Metric
from finetune_wrappers.training.objectives import Objective
from finetune_wrappers.training.optim import AdamW
from finetune_wrappers.training.run import train
from finetune_wrappers.types import InputError, Params, canonical_json, require

_HEADS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoryClassifier(Checked):
  """How it is built and trained; its weights are kept in the task's folder.

  Attributes:
    stories: of the training split, that it is trained on.
    story_length: most tokens of a story that it reads.
    steps: iterations.
    batch_size: stories an iteration.
    learning_rate: the maximum of the schedule.
    blocks: of the GPT.
    width: of the GPT.
    eval_size: held-out stories that its accuracy is measured on.
  """

  stories: int = ruled(SIZE)
  story_length: int = ruled(SIZE)
  steps: int = ruled(STEPS)
  batch_size: int = ruled(SIZE, 64)
  learning_rate: float = ruled(ABOVE_0, 1e-3)
  blocks: int = ruled(whole(1, 100), 2)
  width: int = ruled(whole(4, 4096), 64)
  eval_size: int = ruled(SIZE, 2000)

  def __post_init__(self):
    super().__post_init__()
    require(self.width % _HEADS == 0, "width", self.width, f"a multiple of {_HEADS}")

  def model(self, task: StoryTask) -> gpt.GPT:
    """Its network."""
    return gpt.GPT(self._config(task))

  def says(self, params: Params, task: StoryTask, tokens_BxL: Any, lengths_B: Any) -> Any:
    """Whether stories have the feature, bool [B]; jittable.

    Args:
      params: its weights.
      task: what it was trained on.
      tokens_BxL: int [B, L], L up to `story_length`; stories from their first token on.
      lengths_B: int [B].
    """
    return _said(self.model(task), params, *_room(tokens_BxL, lengths_B, self.story_length))

  def weights(self, task: StoryTask, progress: Callable[[int, int], None] = lambda done, total: None) -> Params:
    """Trained on the split train, if they are not kept yet.

    Raises:
      InputError: for kept weights that are damaged.
    """
    path = task.folder / f"classifier-{self._digest(task)}.bin"
    like = jax.eval_shape(lambda: gpt.build(self._config(task), 0)[0]["params"])
    if path.exists():
      return _read(path, like)
    arrays, _ = gpt.build(self._config(task), 0)
    settings = {"batch_size": self.batch_size, "clip_norm": 1.0, "microbatches": 1}
    (run,) = train(
      self.model(task),
      arrays["params"],
      task,
      objective=StoryLabels(stories=self.stories, story_length=self.story_length),
      optimizer=AdamW.paper(self.steps, eval_every=self.steps, **settings),
      evaluator=LabelAccuracy(story_length=self.story_length, eval_size=self.eval_size),
      learning_rate=self.learning_rate,
      kind="classifier",
      progress=progress,
    )
    if run.diverged_step >= 0:
      step = run.diverged_step
      raise InputError(
        f"learning_rate: the classifier diverged at step {step} with {self.learning_rate}; use a lower one"
      )
    buffer = io.BytesIO()
    np.savez(buffer, *map(np.asarray, jax.tree.leaves(run.params)))
    data = buffer.getvalue()
    write_atomically(path, hashlib.sha256(data).digest() + data)
    return run.params

  def _config(self, task: StoryTask) -> gpt.GPTConfig:
    return gpt.GPTConfig(
      vocab_size=task.vocab_size, length=self.story_length, blocks=self.blocks, heads=_HEADS, width=self.width
    )

  def _digest(self, task: StoryTask) -> str:
    told = {"task": dataclasses.asdict(task), "classifier": dataclasses.asdict(self)}
    return hashlib.sha256(canonical_json(told).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoryLabels(Objective):
  """Whether a story has the feature, as one of two logits at its end.

  Attributes:
    stories: of the training split.
    story_length: most tokens of a story.
  """

  stories: int = ruled(SIZE)
  story_length: int = ruled(SIZE)
  fed = True

  def feed(self, task: StoryTask, lane: Mapping[str, Any], batch_size: int, steps: range) -> Any:
    """See Objective."""
    masks = task.cache("train").masks[: self.stories]
    seed = int(lane["stream"])
    chosen = np.zeros((len(steps), batch_size), int)
    for row, step in zip(chosen, steps, strict=True):
      row[:] = np.random.default_rng((seed, step)).integers(len(masks), size=batch_size)
    tokens, lengths = task.stories_at("train", chosen.ravel(), longest=self.story_length)
    labels = labels_of(task, masks[chosen]).astype(np.int32)
    return {
      "tokens": tokens.reshape(*chosen.shape, self.story_length),
      "lengths": lengths.reshape(chosen.shape),
      "labels": labels,
    }

  def loss(self, model: Model, params: Params, task: StoryTask, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
    """See Objective."""
    del key, task
    logits = _logits(model, params, *_room(batch["tokens"], batch["lengths"], self.story_length))
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean(), {}


def labels_of(task: StoryTask, masks: Any) -> np.ndarray:
  """Whether stories have the task's feature, bool, from the bits of their features."""
  return ((np.asarray(masks) >> FEATURES.index(task.feature)) & 1).astype(bool)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelAccuracy(Checked):
  """Share of stories of the split valid whose label is right.

  Attributes:
    story_length: most tokens of a story.
    eval_size: stories.
  """

  story_length: int = ruled(SIZE)
  eval_size: int = ruled(SIZE)

  def metrics(self, task: Any) -> tuple[Metric, ...]:
    """One."""
    del task
    return (Metric("acc_label"),)

  def test_sets(self, task: StoryTask) -> Any:
    """Tokens, lengths and labels."""
    tokens, lengths, masks = task.stories_of("valid", longest=self.story_length, size=self.eval_size)
    return tokens, lengths, labels_of(task, masks)

  def measure(self, model: Model, params: Params, task: StoryTask, tests: Any) -> Any:
    """See Evaluator."""
    del task
    tokens, lengths, labels = tests
    return jnp.stack([(_said(model, params, *_room(tokens, lengths, self.story_length)) == labels).mean()])


def _room(tokens_BxL: Any, lengths_B: Any, room: int) -> tuple[Any, Any]:
  """Rows of `room` tokens."""
  more = room - tokens_BxL.shape[1]
  return jnp.pad(jnp.asarray(tokens_BxL, jnp.int32), ((0, 0), (0, more))), lengths_B


def _said(model: Model, params: Params, tokens_BxL: Any, lengths_B: Any) -> Any:
  """Whether each story has the feature, bool [B]; some at a time, as attention to thousands would fill the memory."""

  def of_story(story):
    logits = _logits(model, params, story[0][None], story[1][None])[0]
    return logits[1] > logits[0]

  return jax.lax.map(of_story, (tokens_BxL, jnp.asarray(lengths_B)), batch_size=64)


def _logits(model: Model, params: Params, tokens_BxL: Any, lengths_B: Any) -> Any:
  """Of both labels at the end of each story, [B, 2].

  Stories are moved to the end of their row, where one place reads them all; before them stands token 0.
  """
  length = tokens_BxL.shape[1]
  place = jnp.arange(length) - (length - lengths_B[:, None])
  moved = jnp.where(place >= 0, jnp.take_along_axis(tokens_BxL, jnp.maximum(place, 0), axis=1), 0)
  return model.answer(params, moved, length - 1)[:, :2]


def _read(path: Any, like: Params) -> Params:
  """Kept weights, in the structure of `like`: SHA-256 of what follows, and arrays as `np.savez` writes them."""
  try:
    kept = path.read_bytes()
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from error
  digest, data = kept[:32], kept[32:]
  leaves, structure = jax.tree.flatten(like)
  if hashlib.sha256(data).digest() == digest:
    with contextlib.suppress(ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(io.BytesIO(data)) as arrays:
      found = [arrays[f"arr_{i}"] for i in range(len(leaves))]
      if [(x.shape, x.dtype) for x in found] == [(x.shape, x.dtype) for x in leaves]:
        return structure.unflatten(found)
  raise InputError(f"{path}: is damaged; move it away to train the classifier again")
