"""Labels that mean nothing, for the selectivity of probes. W positions of a text, A letters."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_WEIGHT_SCALE = 1000  # whole numbers, so that a sum of them is the same in every program


class ControlTask(NamedTuple):
  """What `control_task` draws.

  Attributes:
    letters: int32 [A], token ids of the alphabet.
    weights: int32 [W, A], the random worth of each letter at each position.
    edges: float32 [C - 1], scores that part the labels, not falling; infinite beside labels that never come at an end.
  """

  letters: Any
  weights: Any
  edges: Any


def control_task(key, text_NxW, labels_N, *, letters: Sequence[int], num_labels: int) -> ControlTask:
  """Labels that mean nothing, for the selectivity of Hewitt and Liang (2019): accuracy minus control accuracy.

  Their control task gives each word type a random label. Three such labels would measure nothing here. One for
  each string: strings are nearly all distinct and samples fresh, so accuracy is the guess level from any
  features. A random permutation of r(x, O): the same problem for a linear layer. A hash of the last few tokens:
  common endings make common labels (guess 0.12 instead of 0.05), and unlike a count it is no sum over tokens.

  So the type is a letter at a position, as for a count, and what is random is its worth: the score sums the worths of
  all positions (a count is that sum with worth 1 for O, else 0) and is cut into labels in such shares that the label
  has the distribution of r(x, O). Worths sum to zero over positions for each letter, so the counts do not move the mean
  score. High control accuracy means that the stream keeps the string.

  It is harder than a count, whose values have gaps: with default settings and counts of 0 to 19 in 40, one-hot letters
  of size 1 (20) gave 0.37 (0.84) for the count and 0.25 (0.55) for the control. So the string alone has
  positive selectivity; its one-hot letters, added as a place, show how much.

  Args:
    key: of the worths; another for each operand, or operands with like labels get the same control.
    text_NxW: int [N, W], what the answers depend on (`Task.text_of`), drawn as the probes' are; some thousands.
    labels_N: int [N], r(x, O) of those texts, in 0..C-1.
    letters: token ids of the alphabet; other tokens are worth nothing.
    num_labels: C.
  """
  samples, width = text_NxW.shape
  worth = jax.random.normal(key, (width, len(letters)))
  weights = jnp.round(_WEIGHT_SCALE * (worth - worth.mean(axis=0))).astype(jnp.int32)
  task = ControlTask(jnp.asarray(letters, jnp.int32), weights, jnp.zeros(0))
  below = jnp.bincount(labels_N, length=num_labels).cumsum()[:-1]
  edges = jnp.quantile(_scores(task, text_NxW).astype(jnp.float32), below / samples)
  edges = jnp.where(below == 0, -jnp.inf, jnp.where(below == samples, jnp.inf, edges))
  return task._replace(edges=edges)


def control_labels(task: ControlTask, text_BxW: Any) -> Any:
  """The control task's label of each text, int32 [B]; jittable, a function of the text alone.

  Args:
    task: from `control_task`.
    text_BxW: int [B, W].
  """
  return jnp.searchsorted(task.edges, _scores(task, text_BxW).astype(jnp.float32), side="right").astype(jnp.int32)


def _scores(task: ControlTask, text_BxW):
  """Sum of the letters' worths, int32 [B]."""
  is_letter = text_BxW[..., None] == task.letters
  return jnp.where(is_letter, task.weights, 0).sum(axis=(1, 2))
