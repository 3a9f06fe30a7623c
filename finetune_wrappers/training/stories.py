"""Training on stories and what is measured of it: losses, and how many generated stories have the feature (Tab. 1)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from finetune_wrappers.models.generate import generate
from finetune_wrappers.models.model import Model, fitting
from finetune_wrappers.rules import COUNT, NOT_NEGATIVE, SHARE_ABOVE_0, SIZE, Checked, one_of, ruled
from finetune_wrappers.tasks.stories.protocols import PROTOCOLS
from finetune_wrappers.tasks.stories.task import StoryTask
from finetune_wrappers.training.evaluators import TEST_SEED, Metric
from finetune_wrappers.training.objectives import Objective
from finetune_wrappers.training.story_classifier import StoryClassifier
from finetune_wrappers.training.swept import swept
from finetune_wrappers.types import Params, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoryText(Objective):
  """Every next token of stories and their instructions (paper part C).

  Attributes:
    protocol: what is done to the stories first: one of PROTOCOLS.
  """

  protocol: str = swept(one_of(*PROTOCOLS), number=lambda name: np.int32(PROTOCOLS.index(name)))
  fed = True

  def check(self, task: Any) -> None:
    """See Objective."""
    require(isinstance(task, StoryTask), "task", task.name, "a StoryTask, as its strings are stories")

  def feed(self, task: StoryTask, lane: Mapping[str, Any], batch_size: int, steps: range) -> Any:
    """See Objective: tokens uint16 [steps, B, T + 1], and for each row the weight of its tokens and their number."""
    batches = task.batches(PROTOCOLS[int(lane["protocol"])], batch_size=batch_size, seed=int(lane["stream"]))
    found = [batches.at(step) for step in steps]
    tokens = np.zeros((len(steps), batch_size, task.length + 1), np.uint16)
    lengths = np.zeros((len(steps), batch_size), np.int32)
    for i, (own, length) in enumerate(found):
      tokens[i], lengths[i] = own, length
    targets = np.maximum(lengths - 1, 0)
    # Every token of a batch counts alike, in however many parts its gradient is computed.
    weights = batch_size / np.maximum(targets.sum(axis=1, keepdims=True), 1) * np.ones_like(targets)
    return {"tokens": tokens, "lengths": lengths, "weights": weights.astype(np.float32)}

  def loss(self, model: Model, params: Params, task: StoryTask, batch: Any, key: Any) -> tuple[Any, dict[str, Any]]:
    """See Objective."""
    del key
    losses_BxT = token_losses(model, params, task, batch["tokens"], batch["lengths"])
    return (batch["weights"] * losses_BxT.sum(axis=1)).mean(), {}


def token_losses(model: Model, params: Params, task: StoryTask, tokens: Any, lengths: Any) -> Any:
  """Cross-entropy of every next token in nats, [B, T]; 0 beyond a row's end.

  Args:
    model: of the parameters.
    params: its weights.
    task: says how many tokens there are.
    tokens: int [B, T + 1].
    lengths: int [B], tokens of each row, the rest being padding.
  """
  tokens = tokens.astype(jnp.int32)
  logits = fitting(model.text(params, tokens[:, :-1]), tokens[:, 1:].shape, task)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
  return jnp.where(jnp.arange(tokens.shape[1] - 1) < lengths[:, None] - 1, losses, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoryLosses(Checked):
  """Losses on held-out stories with and without the feature (Figs. 11, 31, 33).

  Attributes:
    eval_size: held-out stories for each loss.
  """

  eval_size: int = ruled(SIZE)

  def metrics(self, task: Any) -> tuple[Metric, ...]:
    """Losses per token in nats."""
    del task
    return (Metric("loss_feature"), Metric("loss_other"))

  def test_sets(self, task: StoryTask) -> Any:
    """Rows of held-out stories with the feature and without."""
    return {name: task.held_out_rows(name == "feature", self.eval_size) for name in ("feature", "other")}

  def measure(self, model: Model, params: Params, task: StoryTask, tests: Any) -> Any:
    """See Evaluator."""
    return jnp.stack([_mean_loss(model, params, task, tests[name]) for name in ("feature", "other")])


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoryScores(StoryLosses):
  """The losses and the generation score (Figs. 31-34, Tab. 1).

  The generation score is the share of stories, generated from instructions that ask for the feature, that a classifier
  calls ones with it. The classifier reads the story only.

  Attributes:
    prompts: instructions to generate from; 0 leaves the score out.
    classifier: judges the stories; those that are generated are as long as it reads.
    temperature: of generation; 0 takes the likeliest token.
    top_p: tokens are drawn from the likeliest ones that have this probability together.
  """

  prompts: int = ruled(COUNT, 0)
  classifier: StoryClassifier
  temperature: float = ruled(NOT_NEGATIVE, 1.0)
  top_p: float = ruled(SHARE_ABOVE_0, 1.0)

  def metrics(self, task: Any) -> tuple[Metric, ...]:
    """Losses per token in nats, then the score."""
    score = (Metric("generation_score"),) if self.prompts else ()
    return (*super().metrics(task), *score)

  def test_sets(self, task: StoryTask) -> Any:
    """Rows of held-out stories with the feature and without, prompts, and the classifier's weights."""
    told = {"prompts": task.prompts(self.prompts), "classifier": self.classifier.weights(task)} if self.prompts else {}
    return {**super().test_sets(task), **told}

  def measure(self, model: Model, params: Params, task: StoryTask, tests: Any) -> Any:
    """See Evaluator."""
    losses = super().measure(model, params, task, tests)
    if not self.prompts:
      return losses
    stories, lengths = self.generated(model, params, task, tests["prompts"])
    return jnp.append(losses, self.classifier.says(tests["classifier"], task, stories, lengths).mean())

  def generated(self, model: Any, params: Params, task: StoryTask, prompts: Any) -> tuple[Any, Any]:
    """(tokens of stories [B, story_length], their lengths [B]) from prompts (tokens [B, P], lengths [B])."""
    stories, _ = generate(
      model,
      params,
      *prompts,
      steps=self.classifier.story_length,
      temperature=self.temperature,
      top_p=self.top_p,
      key=jax.random.key(TEST_SEED),
      eos=task.eos,
    )
    return stories, (stories != task.eos).sum(axis=1)


def _mean_loss(model: Model, params: Params, task: StoryTask, rows: Any) -> Any:
  """Mean over all tokens, a few rows at a time: their logits are large."""

  def of_row(row):
    return token_losses(model, params, task, row[0][None], row[1][None]).sum()

  return jax.lax.map(of_row, rows, batch_size=16).sum() / (rows[1] - 1).sum()
