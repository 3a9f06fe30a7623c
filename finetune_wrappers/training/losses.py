"""What is trained on: the strings of a step, and the loss on them."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from finetune_wrappers.tasks.task import Task
from finetune_wrappers.training import optim
from finetune_wrappers.types import Params


def answer_logits(model, params: Params, tokens, position: int):
  """The model's answer, [B, V]."""
  return model.apply({"params": params}, tokens, position, method=model.answer_logits)


def training_data(task: Any, settings: optim.Recipe, key, lane) -> tuple[Any, Any]:
  """(tokens [B, T], labels [B]) of one step of one lane.

  A pretraining sample is a row like any other: its prompt and its answer. A lane that mixes them in (App. E.1)
  replaces each row by one with probability `lane.mix`.
  """
  if settings.loss_positions == "text":
    return task.sample_pretraining(key, settings.batch_size, lane.prior)
  batch = task.sample(key, settings.batch_size, lane.c_tr)
  tokens, labels = task.question(batch, lane.target)
  if not getattr(settings, "mixed", False):
    return tokens, labels
  key_row, key_sample = jax.random.split(jax.random.fold_in(key, 1))
  replaced_B = jax.random.uniform(key_row, (settings.batch_size,)) < lane.mix
  other_tokens, other_labels = task.sample_pretraining(key_sample, settings.batch_size, lane.prior)
  tokens = jnp.where(replaced_B[:, None], other_tokens, tokens)
  return tokens, jnp.where(replaced_B, other_labels, labels)


def loss_fn(model, task: Any, settings: Any, params: Params, tokens, target):
  """Mean cross-entropy; scalar.

  `answer`: of the answer. `letters`: of the answer, at every letter. `text`: of every next token of prompt, answer and
  end, with the answer's own loss added `answer_weight` times.
  """
  if settings.loss_positions == "text":
    return _text_loss(model, task, settings, params, tokens, target)
  if settings.loss_positions == "answer":
    logits = answer_logits(model, params, tokens, task.answer_position)
  else:
    output = model.apply({"params": params}, tokens)
    logits = output.logits[:, 1 : 1 + task.num_letters]
    target = jnp.broadcast_to(target[:, None], logits.shape[:2])
  return optax.softmax_cross_entropy_with_integer_labels(getattr(settings, "logit_scale", 1.0) * logits, target).mean()


def _text_loss(model, task, settings, params, tokens, target):
  text_BxT = jnp.concatenate([tokens, target[:, None]], axis=1)
  next_BxT = jnp.concatenate([text_BxT[:, 1:], jnp.full_like(target, task.end)[:, None]], axis=1)
  logits = model.apply({"params": params}, text_BxT, method=model.text_logits)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, next_BxT)
  return losses.mean() + settings.answer_weight * losses[:, task.answer_position].mean()


def loss_and_grads(model, task: Task, settings: optim.Recipe, params: Params, tokens, target):
  """(loss, gradient like params), computed in `settings.microbatches` parts."""
  value_and_grad = jax.value_and_grad(lambda p, *data: loss_fn(model, task, settings, p, *data))
  parts = settings.microbatches
  if parts == 1:
    return value_and_grad(params, tokens, target)

  def add(total, data):
    return jax.tree.map(jnp.add, total, value_and_grad(params, *data)), None

  split = [x.reshape(parts, -1, *x.shape[1:]) for x in (tokens, target)]
  zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
  total, _ = jax.lax.scan(add, zero, tuple(split))
  return jax.tree.map(lambda x: x / parts, total)
