"""Linear probes of what a story has (paper part C, Figs. 11, 35-38): one binary probe for each feature and block.

A probe reads the mean of the last activations of a story. Two references stand beside it, a model pretrained with the
feature and one without, and a control: a label that means nothing, yet is as easy to look up (Hewitt and Liang 2019).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune_wrappers.analysis.linear_probes import ProbeSettings, train_probes
from finetune_wrappers.models.model import Model, needed
from finetune_wrappers.rules import FLAG, SIZE, ruled, whole
from finetune_wrappers.tasks.stories.records import FEATURES
from finetune_wrappers.tasks.stories.task import StoryTask
from finetune_wrappers.training.evaluators import TEST_SEED
from finetune_wrappers.types import Params, require

_SEED = TEST_SEED + 7
_AT_ONCE = 32  # stories in one forward pass
READS = (*FEATURES, "control")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureProbeSettings(ProbeSettings):
  """How probes train; see ProbeSettings. The authors' code: 2K iterations at 1e-3, the last 10 tokens.

  Attributes:
    stories: of the split valid, that probes train on; rounded up to a multiple of 32, as eval_size is.
    eval_size: stories of the split test, each tested once.
    standardise: as in ProbeSettings, measured on all the stories that probes train on.
    last: tokens at the end of a story whose activations are averaged; all of a shorter one.
    instructed: whether the model reads the instruction before the story. The paper does not say. With it, the name of
      the feature stands in what the model reads, and a probe may find it there instead of in the story.
  """

  stories: int = ruled(SIZE)
  last: int = ruled(whole(1, 10_000), 10)
  instructed: bool = ruled(FLAG, False)


@dataclasses.dataclass(frozen=True)
class FeatureProbed:
  """What probes read off one model.

  Attributes:
    blocks: P places: 0 before the first block, n after the n-th.
    accuracy: float [P, Q] on stories of the split test, by place and by what is read, in the order of READS; nan where
      training failed.
    guess: float [Q], accuracy of always guessing the commoner label.
  """

  blocks: tuple[int, ...]
  accuracy: np.ndarray
  guess: np.ndarray

  def rows(self) -> list[dict[str, Any]]:
    """Rows of stage `probe` by `reads`: `guess_baseline`, and `acc_probe` by block; None where training failed."""
    found = []
    for index, reads in enumerate(READS):
      fields = {"stage": "probe", "reads": reads}
      found.append({"metric": "guess_baseline", "value": float(self.guess[index]), **fields})
      for block, accuracy in zip(self.blocks, self.accuracy[:, index].tolist(), strict=True):
        found.append(
          {"metric": "acc_probe", "value": None if np.isnan(accuracy) else accuracy, "block": block, **fields}
        )
    return found


class FeatureProber:
  """Probes of all features at every block; one compiled program for all models of one shape.

  Args:
    model: whose residual stream is read.
    task: whose stories are read.
    settings: shared by all models.

  Raises:
    InputError: for more stories than there are.
  """

  def __init__(self, model: Model, task: StoryTask, settings: FeatureProbeSettings):
    self._model, self._settings = model, settings
    self._train = self._read(task, "valid", "stories")
    self._test = self._read(task, "test", "eval_size")
    self._program = jax.jit(self._probed)

  def __call__(self, params: Params) -> FeatureProbed:
    """Probes one model.

    Raises:
      InputError: for a model that does not give its residual stream.
    """
    # Outside of the program, where JAX would add lines to an error.
    output = jax.eval_shape(self._model.forward, params, jax.ShapeDtypeStruct(self._test[0][:1].shape, jnp.int32))
    blocks = range(0 if output.embedded is not None else 1, len(needed(output, "residuals")) + 1)
    with self._model.numerics():
      accuracy_PxQ = np.asarray(self._program(params, self._train, self._test))
    labels_QxN = self._test[2]
    share = labels_QxN.mean(axis=1)
    return FeatureProbed(tuple(blocks), accuracy_PxQ, np.maximum(share, 1 - share))

  def _read(self, task: StoryTask, split: str, field: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens [N, T], lengths [N], labels int [Q, N]) of the first stories; N is a multiple of `_AT_ONCE`."""
    asked = getattr(self._settings, field)
    size = -(-asked // _AT_ONCE) * _AT_ONCE
    tokens, lengths, masks = task.texts_of(split, size=size, instructed=self._settings.instructed)
    most = len(tokens) // _AT_ONCE * _AT_ONCE
    require(len(tokens) == size, field, asked, f"{most} or less, as the split {split} has {len(tokens)} stories")
    bits = np.random.default_rng(_SEED).integers(2, size=task.vocab_size)
    at = tokens[np.arange(size), np.maximum(lengths - self._settings.last, 0)]
    labels = [(masks >> i) & 1 for i in range(len(FEATURES))]
    return tokens, lengths, np.stack([*labels, bits[at]]).astype(np.int32)

  def _probed(self, params: Params, train: Any, test: Any) -> Any:
    """Accuracy [P, Q]."""
    settings = self._settings
    means_PxNxD, labels_QxN = self._means(params, *train[:2]), train[2]
    tested_PxNxD = self._means(params, *test[:2])
    if settings.standardise:  # here, as the probes that come back do not carry what they were standardised by
      centre = means_PxNxD.mean(axis=1, keepdims=True)
      scale = jnp.maximum(means_PxNxD.std(axis=1, keepdims=True), 1e-6)
      means_PxNxD, tested_PxNxD = (means_PxNxD - centre) / scale, (tested_PxNxD - centre) / scale
      settings = dataclasses.replace(settings, standardise=False)

    def features(key, batch_size):
      chosen = jax.random.randint(key, (batch_size,), 0, means_PxNxD.shape[1])
      return means_PxNxD[:, chosen], labels_QxN[:, chosen]

    found = train_probes(features, settings, 2, jax.random.key(_SEED))
    logits_PxQxNxC = jnp.einsum("pnd,pqdc->pqnc", tested_PxNxD, found.probes.kernel, precision="highest")
    logits_PxQxNxC += found.probes.bias[:, :, None]
    right_PxQ = (logits_PxQxNxC.argmax(axis=-1) == test[2]).mean(axis=-1)
    return jnp.where(found.non_finite | ~jnp.isfinite(logits_PxQxNxC).all((2, 3)), jnp.nan, right_PxQ)

  def _means(self, params: Params, tokens_NxT: Any, lengths_N: Any) -> Any:
    """Means over the last tokens, [P, N, D], a few stories at a time."""

    def of_some(some):
      tokens_BxT, lengths_B = some
      output = self._model.forward(params, tokens_BxT)
      stream = [x for x in (output.embedded, *needed(output, "residuals")) if x is not None]
      place = jnp.arange(tokens_BxT.shape[1])
      read = (place < lengths_B[:, None]) & (place >= lengths_B[:, None] - self._settings.last)
      shares = read / read.sum(axis=1, keepdims=True)
      return jnp.stack([jnp.einsum("btd,bt->bd", x, shares, precision="highest") for x in stream])

    parted = jax.tree.map(
      lambda x: x.reshape(-1, _AT_ONCE, *x.shape[1:]), (jnp.asarray(tokens_NxT, jnp.int32), lengths_N)
    )
    means_GxPxBxD = jax.lax.map(of_some, parted)
    return jnp.moveaxis(means_GxPxBxD, 0, 1).reshape(means_GxPxBxD.shape[1], -1, means_GxPxBxD.shape[-1])
