"""The Tracr setting: stages of compiled capabilities."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from experiments import plan as planning
from experiments import schema
from finetune_wrappers.models import tracr_compile, tracr_stage
from finetune_wrappers.models.tracr_model import TracrTransformer
from finetune_wrappers.tasks.tracr_tasks import make_task
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.methods import Subset
from finetune_wrappers.training.objectives import Answers
from finetune_wrappers.training.optim import SGD
from finetune_wrappers.training.stages import CompileStage, RootStage, Stage, TrainStage
from finetune_wrappers.types import require


@dataclasses.dataclass(frozen=True)
class TracrPlan:
  """See `experiments.plan.Plan`.

  Args:
    config: as `configs.common.tracr_config` lays it out.
    task_name: `counter` or `max_identifier`.
  """

  config: ConfigDict
  task_name: str
  setting = "tracr"

  @property
  def task(self) -> Any:
    """The task, from its settings in the config."""
    with planning.within(f"{self.task_name}.task"):
      return make_task(self.task_name, **self.own.task.to_dict())

  @property
  def own(self) -> Any:
    """The config's section for this task."""
    return self.config[self.task_name]

  def compiled(self, operand: str = "pt") -> CompileStage:
    """The capability compiled for one operand."""
    config = self.config
    return CompileStage(task=self.task, operand=operand, reading=config.reading, mlp_exactness=config.mlp_exactness)

  @property
  def evaluator(self) -> Accuracies:
    """See Plan."""
    return Accuracies(self.config.training.eval_size)

  def bases(self) -> list[Stage]:
    """The compiled capability."""
    return [self.compiled()]

  def finetunes(self) -> list[TrainStage]:
    """Fine-tuning, every target, learning rate, C_Tr and seed."""
    finetune = self.config.finetune
    return [
      self._stage("finetune", self.compiled(), target, rate, c_tr, seed)
      for target in finetune.targets
      for rate in finetune.learning_rates
      for c_tr in finetune.c_trs
      for seed in self.config.seeds
    ]

  def refts(self) -> list[TrainStage]:
    """See Plan."""
    return [
      self._stage("reft", parent, "pt", rate, self.config.reft.c_tr, parent.seed)
      for parent in self.finetunes()
      for rate in self.config.reft.learning_rates
      if rate < parent.learning_rate
    ]

  def controls(self) -> list[TrainStage]:
    """Scr. + FT: compiled for O_FT, then trained on O_PT by reFT's recipe."""
    return [
      self._stage("scratch_ft", self.compiled("ft"), "pt", rate, self.config.reft.c_tr, seed)
      for rate in self.config.reft.learning_rates
      for seed in self.config.seeds
    ]

  def negatives(self) -> list[Stage]:
    """Models that never had O_PT: compiled for O_FT."""
    return [self.compiled("ft")]

  def swept(self, stage: Stage) -> dict[str, Any]:
    """See Plan."""
    if isinstance(stage, CompileStage):
      return {"operand": stage.operand}
    assert isinstance(stage, TrainStage)
    return planning.swept_values(stage)

  def labels(self, facts: dict) -> list[str]:
    """See Plan."""
    return facts["classes"]

  def build(self, stage: RootStage) -> tuple[Any, dict]:
    """See Plan."""
    assert isinstance(stage, CompileStage)
    return tracr_stage.build(
      stage.task, operand=stage.operand, reading=stage.reading, mlp_exactness=stage.mlp_exactness
    )

  def outline(self) -> TracrTransformer:
    """See Plan; both programs have three blocks whatever their sizes."""
    return TracrTransformer(
      vocab_size=1, max_positions=1, width=1, num_layers=3, num_heads=1, key_size=1, mlp_hidden_size=1,
      answer_channels=(0,),
    )  # fmt: skip

  def restore(self, facts: dict) -> Any:
    """See Plan."""
    return tracr_stage.restore(facts)

  def _stage(self, kind, parent, target, rate, c_tr, seed) -> TrainStage:
    """Noise is added to compiled weights only, once."""
    training = self.config.training
    objective = {"positions": training.loss_positions, "logit_scale": training.logit_scale}
    with planning.within("training"):
      return TrainStage(
        kind=kind,
        parent=parent,
        task=self.task,
        objective=Answers(target=target, c_tr=float(c_tr), **objective),
        method=Subset(trained=training.trained),
        optimizer=planning.fields_from(SGD, training, microbatches=self.own.microbatches),
        evaluator=Accuracies(training.eval_size),
        learning_rate=float(rate),
        noise_std=self.own.noise_std if parent.kind == "compile" else 0.0,
        seed=int(seed),
      )


def plans(config: ConfigDict) -> list[TracrPlan]:
  """A plan for each task of the config.

  Raises:
    InputError: for a key that holds what it cannot, or strings whose counts cannot be compiled.
  """
  schema.check(config)
  planning.check_reft(config)
  found = [TracrPlan(config, name) for name in config.tasks]
  for plan in found:
    check_exactness(plan)
  return found


def check_exactness(plan: TracrPlan) -> None:
  """Raises InputError for strings too long to be counted in float32, or an exactness that does not count them."""
  length, exactness, longest = plan.task.max_seq_len, plan.config.mlp_exactness, tracr_compile.LONGEST
  field, pads = f"{plan.task_name}.task.num_letters", plan.task.num_pads
  allowed = f"{longest} or less with num_pads ({pads}), the longest whose counts float32 can hold"
  require(length <= longest, field, plan.task.num_letters, allowed)
  least, most = tracr_compile.exactness_for(length), tracr_compile.MAX_EXACTNESS
  fine = exactness == 0 or least <= exactness <= most
  require(fine, "mlp_exactness", exactness, f"0, or {least} to {most} for {plan.task_name}")
