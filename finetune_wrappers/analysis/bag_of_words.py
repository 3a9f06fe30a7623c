"""A control for classifiers of stories: logistic regression on which tokens a story has, in whatever order."""

import dataclasses
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse

from finetune_wrappers.types import require


@dataclasses.dataclass(frozen=True)
class BagOfWords:
  """A fitted regression.

  Attributes:
    weights: float64 [V], of each token that is there.
    bias: of all stories.
  """

  weights: np.ndarray
  bias: float

  @classmethod
  def fit(cls, tokens_NxL: Any, lengths_N: Any, labels_N: Any, *, vocab_size: int) -> "BagOfWords":
    """Fits it with an L2 penalty of 1e-4 a story.

    Args:
      tokens_NxL: int, stories from their first token on.
      lengths_N: int, tokens of each.
      labels_N: bool.
      vocab_size: V.

    Raises:
      InputError: if all labels are the same.
    """
    labels = np.asarray(labels_N, float)
    require(0 < labels.mean() < 1, "labels", labels.mean(), "some of both kinds")
    x_NxV = _present(tokens_NxL, lengths_N, vocab_size)

    def loss(theta):
      scores = x_NxV @ theta[:-1] + theta[-1]
      error = 1 / (1 + np.exp(-np.clip(scores, -500, 500))) - labels
      value = np.mean(np.logaddexp(0, scores) - labels * scores) + 1e-4 * theta[:-1] @ theta[:-1]
      return value, np.r_[x_NxV.T @ error / len(labels) + 2e-4 * theta[:-1], error.mean()]

    found = scipy.optimize.minimize(loss, np.zeros(vocab_size + 1), jac=True, method="L-BFGS-B")
    return cls(found.x[:-1], float(found.x[-1]))

  def says(self, tokens_NxL: Any, lengths_N: Any) -> Any:
    """Whether stories have the feature, bool [N]."""
    return _present(tokens_NxL, lengths_N, len(self.weights)) @ self.weights + self.bias > 0


def _present(tokens_NxL: Any, lengths_N: Any, vocab_size: int) -> scipy.sparse.csr_matrix:
  """Which tokens each story has, [N, V]."""
  tokens = np.asarray(tokens_NxL)
  row, place = np.nonzero(np.arange(tokens.shape[1]) < np.asarray(lengths_N)[:, None])
  count = scipy.sparse.csr_matrix((np.ones(len(row)), (row, tokens[row, place])), shape=(len(tokens), vocab_size))
  return count.minimum(1)
