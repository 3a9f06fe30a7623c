"""The Tracr setting: stages of compiled capabilities."""

import dataclasses
from typing import Any

from experiments import plan as planning
from experiments import schema
from experiments.measures.maps import KINDS
from experiments.plan import Plan
from experiments.settings import Setting
from finetune_wrappers import rules
from finetune_wrappers.models import tracr_compile, tracr_stage
from finetune_wrappers.models.tracr_model import TracrTransformer
from finetune_wrappers.tasks import tracr_tasks
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.methods import Subset
from finetune_wrappers.training.objectives import Answers
from finetune_wrappers.training.optim import SGD
from finetune_wrappers.training.stages import CompileStage, RootStage, Stage, TrainStage
from finetune_wrappers.types import require


@dataclasses.dataclass(frozen=True)
class TracrPlan(Plan):
  """See Plan; configs are those of `configs.tracr_common.tracr_config`."""

  @property
  def task(self) -> Any:
    """The task, from its settings in the config."""
    with planning.within(f"{self.task_name}.task"):
      return tracr_tasks.make_task(self.task_name, **self.own.task.to_dict())

  @property
  def own(self) -> Any:
    """The config's section for this task."""
    return self.config[self.task_name]

  def compiled(self, operand: str = "pt") -> CompileStage:
    """The capability compiled for one operand."""
    config = self.config
    return CompileStage(task=self.task, operand=operand, reading=config.reading, mlp_exactness=config.mlp_exactness)

  def check(self) -> None:
    """Raises InputError for strings too long to count in float32, or an exactness that does not count them."""
    length, exactness, longest = self.task.max_seq_len, self.config.mlp_exactness, tracr_compile.LONGEST
    field, pads = f"{self.task_name}.task.num_letters", self.task.num_pads
    allowed = f"{longest} or less with num_pads ({pads}), the longest whose counts float32 can hold"
    require(length <= longest, field, self.task.num_letters, allowed)
    least, most = tracr_compile.exactness_for(length), tracr_compile.MAX_EXACTNESS
    fine = exactness == 0 or least <= exactness <= most
    require(fine, "mlp_exactness", exactness, f"0, or {least} to {most} for {self.task_name}")

  def negatives(self) -> list[Stage]:
    """See Plan: compiled for O_FT."""
    return [self.compiled("ft")]

  def swept(self, stage: Stage) -> dict[str, Any]:
    """See Plan."""
    return {"operand": stage.operand} if isinstance(stage, CompileStage) else super().swept(stage)

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

  def _base(self, seed: int) -> Stage:
    del seed
    return self.compiled()

  def _controls(self, seed: int) -> list[tuple[str, Stage]]:
    """Scr. + FT: compiled for O_FT."""
    del seed
    return [("scratch_ft", self.compiled("ft"))]

  def _stage(self, kind, parent, seed, *, target, learning_rate, c_tr) -> TrainStage:
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
        evaluator=self.evaluator,
        learning_rate=float(learning_rate),
        noise_std=self.own.noise_std if parent.kind == "compile" else 0.0,
        seed=int(seed),
      )


_OBJECTIVE = rules.rules_of(Answers)
_STRINGS = rules.Many(rules.text("a string of letters", r"[a-z]+"), empty=True)
_READING = rules.Rule(
  "a (name, key, value) of a reading",
  lambda value: isinstance(value, tuple) and len(value) == 3 and all(isinstance(part, str) for part in value[:2]),
)

SETTING = Setting(
  plan=TracrPlan,
  tasks={"counter": "Counter", "max_identifier": "Max-identifier"},
  rates={0.1: "η_L", 0.01: "η_M", 0.001: "η_S", 0.0001: "η_VS"},
  schema={
    **schema.ANSWERS,
    **{
      name: {"task": schema.section(kind), "noise_std": rules.NOT_NEGATIVE, "microbatches": rules.SIZE}
      for name, kind in tracr_tasks.TASKS.items()
    },
    "reading": rules.one_of(*tracr_tasks.READINGS),
    "mlp_exactness": rules.COUNT,
    "training": {
      **schema.section(SGD, but=("microbatches",)),
      **schema.section(Subset),
      **schema.section(Accuracies),
      "loss_positions": _OBJECTIVE["positions"],
      "logit_scale": _OBJECTIVE["logit_scale"],
    },
    "maps": {
      "draw": rules.one_of(*KINDS),
      "inputs": {"counter": _STRINGS, "max_identifier": _STRINGS},
      "drawn": rules.whole(1, 100),
      "eval_size": rules.SIZE,
    },
    "readings": schema.Optional(rules.Many(_READING, once=False)),
  },
)
