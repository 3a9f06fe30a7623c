"""Attention maps and activation maps on chosen inputs, and how much attention lands on each operand's letter.

Figs. 10, 39-45 and 48-52 (attention), 46-47 and 53-54 (activations of the MLPs' hidden units).
"""

import numpy as np

from experiments.measures import Measure, Measured, row_of
from experiments.measures.data import data_row
from experiments.models import Models, Trained
from experiments.reports.names import short_name
from finetune_wrappers.analysis import attention
from finetune_wrappers.models.tracr_compile import Codec
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.training import step
from finetune_wrappers.training.stages import Stage, TrainStage
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
  tests = step.test_sets(task, plan.config.maps.eval_size)
  chosen = chosen_inputs(plan)
  reference = attention.outputs(compiled.model, compiled.params, tests[0].tokens)
  marked = _operand_letters(task, tests[0])
  # Compiled attention masks nothing: uniform means over BOS and pads too.
  uniform = {operand: float(letters.mean()) for operand, letters in marked.items()}
  out = Measured()
  out.rows += [data_row(plan, "attention_uniform", share, attended=name, c_te=0) for name, share in uniform.items()]
  for stage in stages(plan):
    trained = models.load(stage)
    output = None if trained.diverged else attention.outputs(trained.model, trained.params, tests[0].tokens)
    out.rows += _mass_rows(plan, stage, output, marked, blocks=len(reference.attention))
    out.rows += _shift_rows(plan, stage, output, reference)
    if output is not None and (not isinstance(stage, TrainStage) or stage.seed == plan.config.seeds[0]):
      out.arrays |= _arrays(plan, trained, chosen)
  return out


def chosen_inputs(plan) -> dict[str, np.ndarray]:
  """The strings whose maps are drawn, as token ids [T]: the config's own, else the first of the C_Te = 0 test set."""
  task, given = plan.task, given_inputs(plan)
  if given:
    return given
  tokens = np.asarray(step.test_sets(task, plan.config.maps.drawn)[0].tokens)
  return {"".join(task.symbols[i] for i in row[1 : 1 + task.num_letters]): row for row in tokens}


def given_inputs(plan) -> dict[str, np.ndarray]:
  """The config's own strings, as token ids [T].

  Raises:
    InputError: for a string with a token outside the vocabulary, or of another length than the task's.
  """
  task, field = plan.task, f"maps.inputs.{plan.task_name}"
  codec, found = Codec(tokens=task.symbols, labels=()), {}
  for string in plan.config.maps.inputs[plan.task_name]:
    if len(string) != task.num_letters:
      raise InputError(f"{field}: {string!r} has {len(string)} letters; use {task.num_letters} (num_letters)")
    if not set(string) <= set(task.letters):
      raise InputError(f"{field}: {string!r} has letters outside the vocabulary; use {task.letters} (vocab_size)")
    found[string] = codec.encode(list(string), length=task.length)
  return found


def _operand_letters(task, batch) -> dict[str, np.ndarray]:
  """Bool [B, T]: positions of the letters that decide the O_PT and the O_FT answer."""
  tokens = np.asarray(batch.tokens)
  ids = np.array([task.symbols.index(letter) for letter in task.letters])
  if isinstance(task, CounterTask):
    return {"pt": tokens == ids[0], "ft": tokens == ids[1]}
  targets = {"pt": batch.labels_pt, "ft": batch.labels_ft}
  return {name: tokens == ids[np.asarray(target)][:, None] for name, target in targets.items()}


def _mass_rows(plan, stage: Stage, output, marked: dict[str, np.ndarray], *, blocks: int) -> list:
  """Mean share of the answer position's attention on the letters of O_PT and of O_FT, by block; None if diverged."""
  rows = []
  for operand, letters in marked.items():
    for block in range(blocks):
      share = None
      if output is not None:
        share = float(np.mean(attention.attended_mass(output, block, plan.task.answer_position, letters)))
      rows.append(row_of(plan, stage, "attention_mass", share, block=block, attended=operand, c_te=0))
  return rows


def _shift_rows(plan, stage: Stage, output, reference) -> list:
  """Root-mean-square change of each block's hidden units against the compiled model's, over the latter's own size."""
  rows = []
  for block, before in enumerate(reference.hidden):
    size = float(np.sqrt(np.mean(np.square(before, dtype=np.float64))))
    if size > 0:
      shift = None
      if output is not None:
        change = np.square(output.hidden[block] - before, dtype=np.float64)
        shift = float(np.sqrt(np.mean(change))) / size
      rows.append(row_of(plan, stage, "activation_shift", shift, block=block, c_te=0))
  return rows


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
