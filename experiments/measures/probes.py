"""Linear probes of the operands' answers on pretrained, fine-tuned and control models (Figs. 8, 90-98)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.measures import Measure, Measured, row_of
from experiments.models import Models, Trained, lanes_of
from experiments.plan import within
from finetune_wrappers.analysis import probing
from finetune_wrappers.tasks.pcfg_text import JAILBREAKS
from finetune_wrappers.tasks.task import TARGETS
from finetune_wrappers.training import step
from finetune_wrappers.training.stages import Stage
from finetune_wrappers.types import Params

# Probes have their own strings, apart from the test sets and from pruning's batch.
_SEED = step.TEST_SEED + 3
_CONTROL_SAMPLES = 4096


def stages(plan) -> list[Stage]:
  """Pretrained and fine-tuned models, and those that never had O_PT.

  Raises:
    InputError: for a setting of the probes that is not allowed.
  """
  _settings(plan)
  return [*plan.bases(), *plan.finetunes(), *plan.negatives()]


def measure(models: Models) -> Measured:
  """Rows of stage `probe`: accuracy by block (0: before the first) and by what is read.

  `reads`: `pt` and `ft`, the operands' answers; `control_pt` and `control_ft`, random labels
  (`probing.control_task`). `model`: `pretrain`, `finetune`, or `never`, a model that never had O_PT. `family`: the
  prompt's family token; with `text.jailbreaks` Counting has three (App. E.2).
  """
  plan, out = models.plan, Measured()
  settings, wanted, never = _settings(plan), stages(plan), set(plan.negatives())
  families = (plan.task_name, *(JAILBREAKS if plan.config.text.jailbreaks and plan.task_name == "counting" else ()))
  size = min(plan.config.lanes_per_program or jax.local_device_count(), len(wanted))
  programs: dict[str, Any] = {}
  for begin in range(0, len(wanted), size):
    group = [models.load(stage) for stage in wanted[begin : begin + size]]
    for family in families:
      if family not in programs:
        programs[family] = lanes_of(_program(plan, group[0].model, settings, family), size)
      for model, found in zip(group, programs[family]([model.params for model in group]), strict=True):
        kind = "never" if model.stage in never else model.stage.kind
        out.rows += _rows(plan, model, found, model=kind, family=family)
  return out


def _settings(plan) -> probing.ProbeSettings:
  values = {name: value for name, value in plan.config.probes.items() if name != "prompt"}
  with within("probes"):
    return probing.ProbeSettings(**values)


def _program(plan, model, settings: probing.ProbeSettings, family: str) -> Callable[[Params], probing.ProbeResult]:
  """Probes of every block and label on one model, a function of its parameters."""
  task, text = plan.task, plan.task.text
  place = TARGETS.index(plan.config.probes.prompt)
  letters = tuple(text.first_operand + number for number in range(len(text.grammar.terminals)))

  def letters_of(tokens_BxT):
    return tokens_BxT[:, 5 : 5 + text.window]  # after SOS T O O' SOT

  def control(key, samples, labels):
    fields = {"letters": letters, "window": text.counted, "num_labels": task.num_labels}
    return probing.control_task(key, letters_of(samples.tokens), labels, **fields)

  def program(params):
    keys = jax.random.split(jax.random.key(_SEED), 4)
    samples = task.sample_test(keys[0], _CONTROL_SAMPLES, 0)
    controls = [control(keys[1], samples, samples.labels_pt), control(keys[2], samples, samples.labels_ft)]

    def features(key, batch_size):
      batch = task.sample_test(key, batch_size, 0)
      tokens = task.asking(batch.tokens, text.first_operand + place, family)
      x_PxBxD = model.apply({"params": params}, tokens, task.answer_position, method=model.answer_residuals)
      random = [probing.control_labels(own, letters_of(batch.tokens)) for own in controls]
      return x_PxBxD, jnp.stack([batch.labels_pt, batch.labels_ft, *random])

    return probing.train_probes(features, settings, task.num_labels, keys[3])._replace(probes=None)

  return program


def _rows(plan, trained: Trained, found: probing.ProbeResult, **probed: str) -> list:
  rows = []
  for index, reads in enumerate(("pt", "ft", "control_pt", "control_ft")):
    fields = {"kind": "probe", "reads": reads, **probed}
    guess = float(np.asarray(found.guess)[index])
    rows.append(row_of(plan, trained.stage, "guess_baseline", guess, **fields))
    for block, accuracy in enumerate(np.asarray(found.accuracy)[:, index].tolist()):
      value = None if trained.diverged or np.isnan(accuracy) else accuracy
      rows.append(row_of(plan, trained.stage, "acc_probe", value, block=block, **fields))
  return rows


MEASURE = Measure(stages, measure, needs=("probes",))
