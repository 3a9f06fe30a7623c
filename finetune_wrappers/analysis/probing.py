"""Linear probes (paper App. D): can one linear layer read the old answer off the residual stream?

That a probe reads an answer does not show that the model works it out. Two controls stand beside it: labels that
mean nothing (`control_task`) and a model that never had the capability (`negative`; `saturated`).

    found = probe(model, params, task, negative=params_without_the_capability)
    found.rows(), found.selectivity("pt", block=2), found.saturated("pt", block=2)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune_wrappers.analysis.control_task import control_labels, control_task
from finetune_wrappers.analysis.linear_probes import ProbeSettings, train_probes
from finetune_wrappers.models.model import Model
from finetune_wrappers.statistics import Interval, mean_interval
from finetune_wrappers.tasks.task import TARGETS, Task
from finetune_wrappers.training.evaluators import TEST_SEED
from finetune_wrappers.types import Batch, InputError, Params, require

# Strings for probes are drawn apart from the test sets and from what scores weights for pruning.
_SEED = TEST_SEED + 3
_CONTROL_SAMPLES = 4096
READS = ("pt", "ft", "control_pt", "control_ft")


@dataclasses.dataclass(frozen=True)
class Probed:
  """What probes read off one model.

  Attributes:
    blocks: P places: 0 before the first block, n after the n-th.
    accuracy: float [P, 4] on test strings, by place and by what is read, in the order of READS: the operands' answers
      and labels that mean nothing; nan where training a probe failed. A task that holds strings out is tested on them;
      any other draws both parts alike, so where its strings are few a probe may know them by heart, as it then knows
      the control's.
    guess: float [4], accuracy of always guessing the most common label.
    negative: the same of a model that never had the capability, if one was given.
  """

  blocks: tuple[int, ...]
  accuracy: np.ndarray
  guess: np.ndarray
  negative: "Probed | None" = None

  @classmethod
  def of_arrays(cls, blocks: Any, accuracy: Any, guess: Any) -> "Probed":
    """From what `Prober.train` returns."""
    return cls(tuple(np.asarray(blocks).tolist()), np.asarray(accuracy), np.asarray(guess))

  def of(self, reads: str, block: int) -> float:
    """The accuracy of one probe; `reads` is one of READS.

    Raises:
      InputError: for another, or a block that was not probed.
    """
    require(reads in READS, "reads", reads, f"one of {', '.join(READS)}")
    require(block in self.blocks, "block", block, f"one of {', '.join(map(str, self.blocks))}")
    return float(self.accuracy[self.blocks.index(block), READS.index(reads)])

  def selectivity(self, reads: str, block: int) -> float:
    """How much better the answer is read (`pt` or `ft`) than its control's label; errors as `of`."""
    return self.of(reads, block) - self.of(f"control_{reads}", block)

  def saturated(self, reads: str, block: int, margin: float = 0.05) -> bool:
    """Whether the model without the capability is read as well; see `saturated`.

    Raises:
      InputError: without such a model, or as `of`.
    """
    if self.negative is None:
      raise InputError("negative: missing; probe also a model that never had the capability")
    own, negative = self.of(reads, block), self.negative.of(reads, block)
    guess = float(self.guess[READS.index(reads)])
    return saturated([own], negative_R=[negative], guess=guess, margin=margin)

  def rows(self) -> list[dict[str, Any]]:
    """Rows of stage `probe` by `reads`: `guess_baseline`, and `acc_probe` by block; None where training failed."""
    found = []
    for index, reads in enumerate(READS):
      fields = {"stage": "probe", "reads": reads}
      found.append({"metric": "guess_baseline", "value": float(self.guess[index]), **fields})
      for block, accuracy in zip(self.blocks, self.accuracy[:, index].tolist(), strict=True):
        value = None if np.isnan(accuracy) else accuracy
        found.append({"metric": "acc_probe", "value": value, "block": block, **fields})
    return found


class Prober:
  """Probes of every place in the residual stream and of both operands' answers, with control labels beside them.

  One compiled program for all models of one shape.

  Args:
    model: whose residual stream is read.
    task: gives strings, answers and the text that control labels depend on.
    settings: shared by all models.
    asked: batch to the tokens that the model is given; by default the prompt for `settings.prompt`.
  """

  def __init__(self, model: Model, task: Task, settings: ProbeSettings, asked: Callable[[Batch], Any] | None = None):
    place = TARGETS.index(settings.prompt)
    self._model, self._task, self._settings = model, task, settings
    self._asked = asked or (lambda batch: task.question(batch, place)[0])
    self._program = jax.jit(self.train)

  def __call__(self, params: Params, *, negative: Params | None = None) -> Probed:
    """Probes one model.

    Args:
      params: its weights.
      negative: weights of a model that never had the capability.

    Raises:
      InputError: for a model that does not give its residual stream, or one whose width differs by block.
    """
    beside = None if negative is None else self(negative)
    with self._model.numerics():
      return dataclasses.replace(Probed.of_arrays(*self._program(params)), negative=beside)

  def train(self, params: Params) -> tuple[Any, Any, Any]:
    """(blocks [P], accuracy [P, 4], guess [4]) of one model: a pure function, for several models in one program."""
    task, position = self._task, self._task.answer_position
    keys = jax.random.split(jax.random.key(_SEED), 4)

    def draw_test(key, batch_size):
      return task.sample_test(key, batch_size, 0)

    def draw_train(key, batch_size):
      return task.sample(key, batch_size, 0.0) if task.holds_out else draw_test(key, batch_size)

    samples = draw_train(keys[0], _CONTROL_SAMPLES)
    controls = [
      self._control(keys[1], samples.tokens, samples.labels_pt),
      self._control(keys[2], samples.tokens, samples.labels_ft),
    ]

    blocks: list[int] = []  # known once the model was traced

    def features(draw, key, batch_size):
      batch = draw(key, batch_size)
      stream = self._model.stream(params, self._asked(batch), position)
      blocks[:] = stream
      widths = [x.shape[-1] for x in stream.values()]
      require(len(set(widths)) == 1, "residuals", widths, "one width for all blocks, as one probe's shape serves all")
      x_PxNxD = jnp.stack([x.reshape(-1, x.shape[-1]) for x in stream.values()])
      answers = [batch.labels_pt.ravel(), batch.labels_ft.ravel()]
      text = self._text(batch.tokens, batch.labels_pt)[0]
      return x_PxNxD, jnp.stack([*answers, *(control_labels(own, text) for own in controls)])

    train, test = (functools.partial(features, draw) for draw in (draw_train, draw_test))
    found = train_probes(train, self._settings, task.num_labels, keys[3], test_features=test)
    return jnp.array(blocks), found.accuracy, found.guess

  def _control(self, key, tokens, labels):
    text, letters = self._text(tokens, labels)
    return control_task(key, text, labels.ravel(), letters=letters, num_labels=self._task.num_labels)

  def _text(self, tokens_BxT, labels):
    """(text of every answer, [N, W], letters): with several answer positions each text stands there as often."""
    text_BxW, letters = self._task.text_of(tokens_BxT)
    return jnp.repeat(text_BxW, labels.size // len(labels), axis=0), letters


def probe(
  model: Model, params: Params, task: Task, settings: ProbeSettings | None = None, *, negative: Params | None = None
) -> Probed:
  """Probes one model; arguments and errors are those of `Prober`, which compiles once for many."""
  return Prober(model, task, settings or ProbeSettings())(params, negative=negative)


def selectivity(accuracies_R: Any, *, control_R: Any, level: float = 0.95) -> tuple[float, Interval]:
  """Mean over seeds of accuracy minus control, with Student's t interval of the paired differences.

  The control is the model's own control task, or a model without the capability. One seed has no interval: (nan, nan).

  Args:
    accuracies_R: float [R], fractions, one for each seed.
    control_R: float [R], of the same seeds in the same order.
    level: confidence, in (0, 1), else ValueError.

  Raises:
    InputError: for no seeds, not as many on both sides, or a NaN.
  """
  accuracies_R, control_R = _paired(accuracies_R, control_R)
  differences_R = accuracies_R - control_R
  return float(differences_R.mean()), mean_interval(differences_R, level, bounds=(-1.0, 1.0))


def saturated(accuracies_R: Any, *, negative_R: Any, guess: float, margin: float = 0.05) -> bool:
  """Whether a probe says nothing about the capability, since it reads the label without it just as well.

  The rule, on means over seeds: the probe of the negative control (a model that never had the capability; same
  strings, same settings) is more than `margin` above the guess, and the model's own not more than `margin` above
  that. A negative control at 1 - margin is always saturated; both at the guess level is a finding, not saturation.

  Args:
    accuracies_R: float [R], fractions, of the model under study.
    negative_R: float [R], of the negative control.
    guess: accuracy of guessing the most common label, `ProbeResult.guess`.
    margin: fraction, 0 or more.

  Raises:
    InputError: for no seeds, not as many on both sides, a NaN, or a margin below 0.
  """
  accuracies_R, negative_R = _paired(accuracies_R, negative_R)
  require(margin >= 0, "margin", margin, "0 or more")
  own, negative = accuracies_R.mean(), negative_R.mean()
  return bool(negative - guess > margin and own - negative <= margin)


def _paired(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
  first, second = np.atleast_1d(np.asarray(first, float)), np.atleast_1d(np.asarray(second, float))
  fits = first.ndim == 1 and first.shape == second.shape and first.size > 0
  require(fits, "seeds", (first.shape, second.shape), "as many on both sides, at least one, in one dimension")
  finite = np.isfinite(first).all() and np.isfinite(second).all()
  require(bool(finite), "accuracies", (first, second), "finite numbers; leave out diverged seeds and count them")
  return first, second
