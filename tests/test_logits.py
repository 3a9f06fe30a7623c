"""A model must give the logits that a task reads: anything else is refused when it is traced, before it trains."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune_wrappers.analysis.pruning import Pruner, PruneSettings
from finetune_wrappers.models.model import FunctionModel, answer_logits
from finetune_wrappers.tasks.functions import FunctionTask
from finetune_wrappers.tasks.pcfg_tasks import PCFGTask
from finetune_wrappers.tasks.pcfg_text import PCFGText
from finetune_wrappers.tasks.task import Numerical
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.objectives import Answers, MixedAnswers, Text
from finetune_wrappers.training.optim import SGD
from finetune_wrappers.training.run import train
from finetune_wrappers.training.swept import with_values
from finetune_wrappers.types import InputError

COUNTER = CounterTask(num_letters=5, vocab_size=3, num_pads=1)  # 7 tokens, 7 labels
PCFG = PCFGTask(PCFGText(window=10, counted=6, occurrence=1, token_place=4, farthest=8), "counting")
PRIOR = (0.9, 0.1, 0.0)
PRUNE = PruneSettings(ks=(0, 1), batch_size=8, eval_size=8, random_draws=1)


def model_with(logits, drop=()):
  """So many logits at every position; without the axes of `drop`."""

  def function(params, tokens):
    found = jnp.zeros((*tokens.shape, logits)) + params["bias"]
    return found.sum(drop)

  return FunctionModel(function)


def loss_of(objective, task):
  objective = with_values(objective, {"target": 0})

  def use(model):
    batch = jax.eval_shape(lambda key: objective.draw(task, key, 8), jax.random.key(0))
    jax.eval_shape(lambda b: objective.loss(model, {"bias": 0.0}, task, b, None), batch)

  return use


def measure(model):
  accuracies = Accuracies(8)
  accuracies.measure(model, {"bias": 0.0}, COUNTER, accuracies.test_sets(COUNTER))


def trained(model):
  train(
    model, {"bias": np.float32(0)}, COUNTER, objective=Answers(c_tr=0.0), learning_rate=0.1,
    optimizer=SGD.paper(5, eval_every=5, batch_size=8), evaluator=Accuracies(8),
  )  # fmt: skip


USES = {
  "answers": (loss_of(Answers(c_tr=0.0), COUNTER), 7, "[8, V]"),
  "letters": (loss_of(Answers(c_tr=0.0, positions="letters"), COUNTER), 7, "[8, 5, V]"),
  "mixed": (loss_of(MixedAnswers(c_tr=0.0, prior=PRIOR), PCFG), PCFG.num_labels, "[8, V]"),
  "text": (loss_of(Text(prior=PRIOR), PCFG), PCFG.num_labels, f"[8, {PCFG.length + 1}, V]"),
  "accuracies": (measure, 7, "[8, V]"),
  "pruning": (lambda model: Pruner(model, COUNTER, PRUNE)({"bias": 0.0, "matrix": np.zeros((3, 3))}), 7, "[8, V]"),
  "training": (trained, 7, "[8, V]"),
}


@pytest.mark.parametrize("name", USES)
def test_fewer_logits_than_labels_are_refused_in_one_line_wherever_answers_are_read(name):
  use, labels, places = USES[name]
  with pytest.raises(InputError) as refused:
    use(model_with(labels - 1))
  message = str(refused.value)
  assert message.startswith("model: gives logits [8, ") and message.endswith(f"needs {places}, V at least {labels}")
  if name not in ("pruning", "training"):
    use(model_with(labels))
    use(model_with(labels + 1))


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("drop", [(1,), (1, 2), (0,)])
def test_logits_that_are_not_at_every_position_are_refused_in_one_line(name, drop):
  use, labels, _ = USES[name]
  with pytest.raises(InputError) as refused:
    use(model_with(labels, drop))
  assert re.fullmatch(r"model: gives logits \[[^\n]*\]; needs \[8, \d+, V\], [^\n]+", str(refused.value))


def test_several_positions_and_numbers_need_what_they_read():
  task = FunctionTask(
    lambda key, size, c_tr: jax.random.randint(key, (size, 6), 0, 3), lambda tokens: (tokens[:, :2], tokens[:, 2:4]),
    name="numbers", length=6, num_labels=3, answer_position=(4, 5), output=Numerical((0.0, 1.0, 2.0)),
  )  # fmt: skip
  tokens = np.zeros((8, 6), int)
  assert answer_logits(model_with(1), {"bias": 0.0}, task, tokens).shape == (8, 2, 1)
  with pytest.raises(InputError, match=r"gives logits \[8, 2, 0\]; needs \[8, 2, V\], V at least 1\Z"):
    answer_logits(model_with(0), {"bias": 0.0}, task, tokens)


def test_a_model_that_answers_once_for_a_string_is_read_at_its_only_position():
  tokens = np.zeros((3, 5), int)
  once = FunctionModel(lambda params, tokens: jnp.ones((len(tokens), 1, 7)))
  assert once.answer({}, tokens, 0).shape == (3, 7)
  for position in (1, (0,)):  # JAX would read position 0 instead of 1
    with pytest.raises(InputError, match=r"\Amodel: gives logits \[3, 1, 7\]; needs \[3, 5, V\], [^\n]+\Z"):
      once.answer({}, tokens, position)
  with pytest.raises(InputError, match="logits at every position"):
    once.text({}, tokens)
