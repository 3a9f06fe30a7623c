"""Attention maps and activation maps on chosen inputs, and how much attention lands on each operand's letter.

Figs. 10, 39-45 and 48-52 (attention), 46-47 and 53-54 (activations of the MLPs' hidden units).
"""

import numpy as np

from experiments.measures import Measure, Measured, rows_of
from experiments.measures.data import data_row
from experiments.models import Models, Trained
from experiments.reports.names import short_name
from finetune_wrappers.analysis import attention
from finetune_wrappers.models.tracr_codec import Codec
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.stages import Stage
from finetune_wrappers.types import InputError

KINDS = ("attention", "hidden")


def stages(plan) -> list[Stage]:
  """Compiled, fine-tuned and, with `config.reft.measure`, reverse fine-tuned.

  Raises:
    InputError: for strings that cannot be drawn, before anything is trained.
  """
  given_inputs(plan)
  return [plan.bases()[0], *plan.finetunes(), *(plan.refts() if plan.config.reft.measure else [])]


def measure(models: Models) -> Measured:
  """Rows `attention_mass` and `activation_shift`; arrays `<task>/<model>/<input>/<attention|hidden>` [blocks, ...].

  Maps are kept for the first seed, rows for all. Each mass has uniform attention's beside it.
  """
  plan = models.plan
  compiled = models.load(plan.bases()[0])
  task = plan.task
  batch, chosen = Accuracies(plan.config.maps.eval_size).test_sets(task)[0], chosen_inputs(plan)
  marked = task.marks(batch)
  if marked is None:
    raise InputError(f"measures: maps need to know which tokens an answer is about, which {task.name} does not say")
  observer = attention.Observer(compiled.model, task, tokens_BxT=batch.tokens, marks=marked, reference=compiled.params)
  # Compiled attention masks nothing: uniform means over BOS and pads too.
  uniform = {operand: float(letters.mean()) for operand, letters in marked.items()}
  out = Measured()
  out.rows += [data_row(plan, "attention_uniform", share, attended=name, c_te=0) for name, share in uniform.items()]
  for stage in stages(plan):
    trained = models.load(stage)
    out.rows += rows_of(plan, stage, observer(trained.params).rows(), diverged=trained.diverged)
    if not trained.diverged and (stage == compiled.stage or stage.seed == plan.config.seeds[0]):
      out.arrays |= _arrays(plan, trained, chosen)
  return out


def chosen_inputs(plan) -> dict[str, np.ndarray]:
  """The strings whose maps are drawn, as token ids [T]: the config's own, else the first of the C_Te = 0 test set."""
  task, given = plan.task, given_inputs(plan)
  if given:
    return given
  tokens = np.asarray(Accuracies(plan.config.maps.drawn).test_sets(task)[0].tokens)
  return {"".join(task.symbols[i] for i in row[1 : 1 + task.num_letters]): row for row in tokens}


def given_inputs(plan) -> dict[str, np.ndarray]:
  """The config's own strings, as token ids [T].

  Raises:
    InputError: for a string with a token outside the vocabulary, or of another length than the task's.
  """
  task, field = plan.task, f"maps.inputs.{plan.task_name}"
  codec, found = Codec(tokens=task.symbols, labels=(), max_seq_len=task.max_seq_len), {}
  for string in plan.config.maps.inputs[plan.task_name]:
    if len(string) != task.num_letters:
      raise InputError(f"{field}: {string!r} has {len(string)} letters; use {task.num_letters} (num_letters)")
    if not set(string) <= set(task.letters):
      raise InputError(f"{field}: {string!r} has letters outside the vocabulary; use {task.letters} (vocab_size)")
    found[string] = codec.encode(list(string), length=task.length)
  return found


def _arrays(plan, trained: Trained, chosen: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  output = attention.outputs(trained.model, trained.params, np.stack(list(chosen.values())))
  name = short_name(plan.swept(trained.stage))
  found = {}
  for index, string in enumerate(chosen):
    key = f"{plan.task_name}/{name}/{string}"
    found[f"{key}/attention"] = np.stack([block[index].mean(axis=0) for block in output.attention])
    found[f"{key}/hidden"] = np.stack([block[index] for block in output.hidden])
  return found


MEASURE = Measure(stages, measure, needs=("maps",))
