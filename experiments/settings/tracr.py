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
from finetune_wrappers.tasks.tracr_tasks import make_task
from finetune_wrappers.training.optim import TRAINED, TrainSettings
from finetune_wrappers.training.stages import CompileStage, RootStage, Stage, TrainStage
from finetune_wrappers.types import require


@dataclasses.dataclass(frozen=True)
class TracrPlan(Plan):
  """See Plan; configs are those of `configs.tracr_common.tracr_config`."""

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
    return CompileStage(self.task, operand, self.config.reading, self.config.mlp_exactness)

  def check(self) -> None:
    """Raises InputError for strings too long to count in float32, or an exactness that does not count them."""
    length, exactness, longest = self.task.max_seq_len, self.config.mlp_exactness, tracr_compile.LONGEST
    field, pads = f"{self.task_name}.task.num_letters", self.task.num_pads
    allowed = f"{longest} or less with num_pads ({pads}), the longest whose counts float32 can hold"
    require(length <= longest, field, self.task.num_letters, allowed)
    least, most = tracr_compile.exactness_for(length), tracr_compile.MAX_EXACTNESS
    fine = exactness == 0 or least <= exactness <= most
    require(fine, "mlp_exactness", exactness, f"0, or {least} to {most} for {self.task_name}")

  def paths(self) -> list[str]:
    """See Plan; every compiled program has three blocks, whatever its task."""
    layers = ("attn/key", "attn/query", "attn/value")
    return [*planning.array_paths(3, layers), "pos_embed/embedding", "token_embed/embedding"]

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
    settings = self._settings(parent)
    return TrainStage(kind, parent, self.task, target, settings, float(learning_rate), float(c_tr), int(seed))

  def _settings(self, parent: Stage) -> TrainSettings:
    """Noise is added to compiled weights only, once."""
    noise = self.own.noise_std if isinstance(parent, CompileStage) else 0.0
    more = {"noise_std": noise, "microbatches": self.own.microbatches}
    with planning.within("training"):
      return planning.settings_from(TrainSettings, self.config.training, **more)


def _task(**own: rules.Rule) -> dict[str, Any]:
  task = {
    "num_letters": rules.whole(2),
    "vocab_size": rules.whole(2, 26),
    "num_pads": rules.COUNT,
    "q": rules.ANY_WHOLE,
    **own,
  }
  return {"task": task, "noise_std": rules.NOT_NEGATIVE, "microbatches": rules.SIZE}


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
    "counter": _task(distinct_answers_in_test=rules.FLAG),
    "max_identifier": _task(rank_pt=rules.SIZE, rank_ft=rules.SIZE),
    "reading": rules.one_of(*tracr_compile.READINGS),
    "mlp_exactness": rules.COUNT,
    "training": {
      **schema.RECIPE,
      **schema.SCHEDULE,
      "momentum": rules.SHARE_BELOW_1,
      "dampening": rules.SHARE_BELOW_1,
      "trained": rules.one_of(*TRAINED),
      "loss_positions": rules.one_of("answer", "letters"),
      "logit_scale": rules.ABOVE_0,
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
