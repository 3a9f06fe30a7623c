"""Who says whether a story has the feature: the classifier, a bag of words, and the maker's own rule."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np

from finetune_wrappers.analysis.bag_of_words import BagOfWords
from finetune_wrappers.tasks.stories.maker import StoryMaker, feature_by_rule
from finetune_wrappers.tasks.stories.task import StoryTask
from finetune_wrappers.training.story_classifier import StoryClassifier, labels_of

# (tokens [N, L], lengths [N]) -> (whether each story has the feature, whether the judge could read it), bool [N] each
Says = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


_MOST_BAGGED = 50_000  # stories that the bag of words is fitted on; it has far fewer weights


@dataclasses.dataclass(frozen=True)
class Judges:
  """Judges of one task's stories.

  Attributes:
    task: whose stories.
    story_length: L, most tokens of a story.
    readers: by name; `rule` is there for made stories only.
  """

  task: StoryTask
  story_length: int
  readers: Mapping[str, Says]

  def labelled(self, split: str, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens, lengths, labels) of the first stories of a split."""
    tokens, lengths, masks = self.task.stories_of(split, longest=self.story_length, size=size)
    return tokens, lengths, labels_of(self.task, masks)


def judges(task: StoryTask, classifier: StoryClassifier) -> Judges:
  """All of them, trained on the split train."""
  weights, longest = classifier.weights(task), classifier.story_length
  says = jax.jit(lambda tokens, lengths: classifier.says(weights, task, tokens, lengths))
  tokens, lengths, masks = task.stories_of("train", longest=longest, size=min(classifier.stories, _MOST_BAGGED))
  bag = BagOfWords.fit(tokens, lengths, labels_of(task, masks), vocab_size=task.vocab_size)
  readers: dict[str, Says] = {
    "classifier": lambda tokens, lengths: _all_read(np.asarray(says(tokens, lengths))),
    "bag_of_words": lambda tokens, lengths: _all_read(bag.says(tokens, lengths)),
  }
  if isinstance(task.source, StoryMaker):
    readers["rule"] = lambda tokens, lengths: _by_rule(task, tokens, lengths)
  return Judges(task, longest, readers)


def _all_read(said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  return said, np.ones_like(said)


def _by_rule(task: StoryTask, tokens: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  texts = (task.tokenizer.decode(row[:length], continues=True) for row, length in zip(tokens, lengths, strict=True))
  found = [feature_by_rule(text, feature=task.feature) for text in texts]
  return np.array([said is True for said in found]), np.array([said is not None for said in found])
