"""Linear probes of the operands' answers on pretrained, fine-tuned and control models (Figs. 8, 90-98)."""

import jax

from experiments.measures import Measure, Measured, rows_of
from experiments.models import Models
from experiments.plan import within
from finetune_wrappers.analysis.probing import Probed, Prober, ProbeSettings
from finetune_wrappers.tasks.task import TARGETS
from finetune_wrappers.training.lanes import over_models
from finetune_wrappers.training.stages import Stage


def stages(plan) -> list[Stage]:
  """Pretrained or compiled, and fine-tuned models, and those that never had O_PT.

  Raises:
    InputError: for a setting of the probes that is not allowed.
  """
  _settings(plan)
  return [*plan.bases(), *plan.finetunes(), *plan.negatives()]


def measure(models: Models) -> Measured:
  """Rows of stage `probe`: accuracy by block (0: before the first) and by what is read.

  `reads`: `pt` and `ft`, the operands' answers; `control_pt` and `control_ft`, labels that mean nothing
  (`analysis.control_task`). `model` says what was probed: the stage's kind, or `never`, a model that never had O_PT.
  `family` is the token that asks, or the task's name where no token does.
  """
  plan, out = models.plan, Measured()
  wanted, never, families = stages(plan), set(plan.negatives()), families_of(plan.task)
  size = min(plan.config.lanes_per_program or jax.local_device_count(), len(wanted))
  programs = {}
  for begin in range(0, len(wanted), size):
    group = [models.load(stage) for stage in wanted[begin : begin + size]]
    for family in families:
      if family not in programs:
        prober = Prober(group[0].model, plan.task, _settings(plan), _asked(plan, family))
        programs[family] = over_models(group[0].model, prober.train, size)
      for own, arrays in zip(group, programs[family]([own.params for own in group]), strict=True):
        fields = {"model": "never" if own.stage in never else own.stage.kind, "family": family}
        found = Probed.of_arrays(*arrays).rows()
        out.rows += rows_of(plan, own.stage, found, diverged=own.diverged, **fields)
  return out


def families_of(task) -> tuple[str, ...]:
  """The tokens with which a prompt asks the task's question; its name where prompts have none."""
  return task.families if task.prompted else (task.name,)


def _settings(plan) -> ProbeSettings:
  with within("probes"):
    return ProbeSettings(**plan.config.probes)


def _asked(plan, family: str):
  """Batch to prompts with that family token; None where there are no prompts."""
  task, place = plan.task, TARGETS.index(plan.config.probes.prompt)
  if not task.prompted:
    return None
  return lambda batch: task.asking(batch.tokens, task.text.first_operand + place, family)


MEASURE = Measure(stages, measure, needs=("probes.prompt",))
