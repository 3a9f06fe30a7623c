"""The PCFG setting: stages of capabilities learned in pretraining."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from experiments import plan as planning
from experiments import schema
from experiments.plan import Plan
from experiments.settings import Setting
from finetune_wrappers import rules
from finetune_wrappers.analysis import pruning
from finetune_wrappers.models import gpt
from finetune_wrappers.tasks.pcfg_grammar import PAPER_GRAMMAR, parse
from finetune_wrappers.tasks.pcfg_tasks import PCFGTask
from finetune_wrappers.tasks.pcfg_text import PCFGText
from finetune_wrappers.training.optim import AdamWSettings
from finetune_wrappers.training.stages import InitStage, RootStage, Stage, TextStage
from finetune_wrappers.types import InputError, require


@dataclasses.dataclass(frozen=True)
class PCFGPlan(Plan):
  """See Plan; configs are those of `configs.pcfg_common.pcfg_config`."""

  axes = {
    "target": "finetune.targets",
    "learning_rate": "finetune.learning_rates",
    "mix": "finetune.mixes",
    "c_tr": "finetune.c_trs",
  }
  base_axes = {"pretraining_steps": "pretrain.steps", "prior": "finetune.priors"}

  @property
  def text(self) -> PCFGText:
    """Text and pretraining tasks, from their settings in the config."""
    values = self.config.text.to_dict()
    lines = values.pop("rules")
    with planning.within("text"):
      return PCFGText(grammar=parse(lines) if lines else PAPER_GRAMMAR, **values)

  @property
  def task(self) -> PCFGTask:
    """The fine-tuning task."""
    text = self.text
    with planning.within(self.task_name):
      return PCFGTask(text, self.task_name, **self.config[self.task_name].to_dict())

  def init(self, seed: int) -> InitStage:
    """The network before any training."""
    text = self.text
    sizes = {"vocab_size": len(text.symbols), "length": text.prompt_length + 1}
    with planning.within("model"):
      return InitStage(gpt.GPTConfig(**sizes, **self.config.model.to_dict()), int(seed))

  def pretrained(self, prior: str, seed: int, steps: int) -> TextStage:
    """The network after `steps` iterations of pretraining; answers for Counting are what its curves show."""
    config = self.config.pretrain
    task = PCFGTask(self.text, "counting")
    rate = float(config.learning_rate)
    shares = self._prior(prior)
    return TextStage(
      "pretrain", self.init(seed), task, "pt", self._pretraining(steps), rate, 0.0, int(seed), shares, 0.0
    )

  def check(self) -> None:
    """Raises InputError for shares of pretraining that do not rise to 1, or priors that do not fit each other."""
    fractions = self.config.pretrain.eval_fractions
    ends = fractions[-1] == 1 and fractions == tuple(sorted(fractions))
    require(ends, "pretrain.eval_fractions", fractions, "rising shares, the last 1")
    _check_priors(self.config, len(self.text.grammar.terminals))

  def paths(self) -> list[str]:
    """See Plan."""
    blocks = planning.array_paths(self.config.model.blocks, ("attn/qkv",), ("norm_1", "norm_2"))
    outer = ("head/kernel", "norm/bias", "norm/scale", "pos_embed/embedding", "token_embed/embedding")
    return [*blocks, *outer]

  def negatives(self) -> list[Stage]:
    """Models that never had O_PT: pretrained without it."""
    config = self.config
    return [self.pretrained(config.pretrain.control_prior, s, n) for n in config.pretrain.steps for s in config.seeds]

  def swept(self, stage: Stage) -> dict[str, Any]:
    """See Plan; with the name of the prior and n_iters of the pretraining."""
    if not isinstance(stage, TextStage):
      return {}
    if stage.kind == "pretrain":
      return {"prior": self._prior_name(stage.prior), "pretraining_steps": stage.settings.steps}
    return {**super().swept(stage), **self.swept(stage.parent)}

  def labels(self, facts: dict) -> list[str]:
    """Answers are tokens."""
    del facts
    return list(self.text.symbols)

  def build(self, stage: RootStage) -> tuple[Any, dict]:
    """See Plan."""
    assert isinstance(stage, InitStage)
    return gpt.build(stage.model, stage.seed)

  def restore(self, facts: dict) -> Any:
    """See Plan."""
    return gpt.restore(facts)

  def _base(self, seed: int, *, pretraining_steps: int, prior: str) -> TextStage:
    return self.pretrained(prior, seed, pretraining_steps)

  def _controls(self, seed: int) -> list[tuple[str, Stage]]:
    """Scr. + FT: pretrained without O_PT; with `reft.scratch` also the network before any training."""
    config = self.config
    never = [self.pretrained(config.pretrain.control_prior, seed, steps) for steps in config.pretrain.steps]
    scratch = [("scratch", self.init(seed))] if config.reft.scratch else []
    return [*(("scratch_ft", model) for model in never), *scratch]

  def _stage(self, kind, parent, seed, *, target, learning_rate, c_tr, mix=0.0) -> TextStage:
    rate, c_tr, mix = float(learning_rate), float(c_tr), float(mix)
    prior = parent.prior if isinstance(parent, TextStage) else self._prior(self.config.pretrain.control_prior)
    with planning.within("training"):
      settings = planning.settings_from(AdamWSettings, self.config.training, mixed=mix > 0)
    return TextStage(kind, parent, self.task, target, settings, rate, c_tr, int(seed), prior, mix)

  def _prior(self, name: str) -> tuple[float, ...]:
    return tuple(float(share) for share in self.config.priors[name])

  def _prior_name(self, prior: tuple[float, ...]) -> str:
    return next(name for name in self.config.priors if self._prior(name) == prior)

  def _pretraining(self, steps: int) -> AdamWSettings:
    section = self.config.pretrain.copy_and_resolve_references()
    own = ("steps", "learning_rate", "control_prior", "warmup_fraction", "eval_fractions")
    warmup, fractions = section.warmup_fraction, section.eval_fractions
    shared = ConfigDict({name: value for name, value in section.items() if name not in own})
    with planning.within("pretrain"):
      return planning.settings_from(
        AdamWSettings,
        shared,
        steps=int(steps),
        warmup_steps=int(warmup * steps),
        eval_steps=sorted({round(fraction * steps) for fraction in fractions}),
        loss_positions="text",
        mixed=False,
      )


def _check_priors(config: ConfigDict, operands: int) -> None:
  """Raises InputError for a prior that is none, or is another's twin, or a control that would meet O_PT."""
  control, names = config.pretrain.control_prior, {}
  for name, shares in config.priors.items():
    fine = len(shares) == operands and abs(sum(shares) - 1) < 1e-6
    require(fine, f"priors.{name}", shares, f"{operands} shares that sum to 1, one for each operand")
    twin = names.setdefault(shares, name)  # rows name a prior by its shares
    require(twin == name, f"priors.{name}", shares, f"other shares than those of {twin!r}")
  rules.one_of(*config.priors).check("pretrain.control_prior", control)
  for name in config.finetune.priors:
    rules.one_of(*config.priors).check("finetune.priors", name)
  shares = config.priors[control]
  require(shares[0] == 0, f"priors.{control}", shares, "no share of O_PT for the control (pretrain.control_prior)")
  if control in config.finetune.priors:
    raise InputError(f"finetune.priors: {control!r} never had O_PT; it is the control (pretrain.control_prior)")


_RECIPE = {
  **schema.RECIPE,
  "beta1": rules.SHARE_BELOW_1,
  "beta2": rules.SHARE_BELOW_1,
  "weight_decay": rules.NOT_NEGATIVE,
  "answer_weight": rules.NOT_NEGATIVE,
  "microbatches": rules.SIZE,
}
_SCOPES = ", ".join(scope for scope in pruning.SCOPES if scope != "near_zero")  # that is for compiled weights

SETTING = Setting(
  plan=PCFGPlan,
  tasks={"counting": "Counting", "index": "Index"},
  rates={1e-4: "η_L", 1e-5: "η_M", 1e-6: "η_S"},
  schema={
    "text": schema.section(
      PCFGText, rules=rules.Many(rules.text("a rule: parent -> child child [probability]", r".+"), empty=True)
    ),
    "counting": schema.section(PCFGTask, but=("name",)),
    "index": schema.section(PCFGTask, but=("name",)),
    "model": schema.section(gpt.GPTConfig, but=("vocab_size", "length")),
    "priors": schema.Named(rules.Many(rules.SHARE, once=False)),
    "pretrain": {
      **_RECIPE,
      "steps": rules.Many(rules.STEPS),
      "learning_rate": rules.ABOVE_0,
      "control_prior": schema.WORD,
      "warmup_fraction": rules.SHARE_BELOW_1,
      "eval_fractions": rules.Many(rules.SHARE),
    },
    "training": {**_RECIPE, **schema.SCHEDULE, "loss_positions": rules.one_of("answer", "text")},
    "finetune": {**schema.FINETUNE, "priors": rules.Many(schema.WORD), "mixes": rules.Many(rules.SHARE)},
    "reft": {**schema.REFT, "scratch": rules.FLAG},
    "pruning": {
      **schema.PRUNING,
      "scopes": rules.Many(
        rules.text(f"{_SCOPES} or a path as blocks_1/attn/qkv/kernel", r"(?!near_zero$)[a-z_0-9/]{1,200}")
      ),
      "single_weights": rules.Rule(
        "0, all that learned weights allow", lambda value: rules.COUNT.fits(value) and value == 0
      ),
    },
    "probes": {
      "prompt": rules.one_of("pt", "ft"),
      "steps": rules.STEPS,
      "batch_size": rules.SIZE,
      "learning_rate": rules.ABOVE_0,
      "drops": rules.Many(rules.whole(1, rules.INT32), empty=True),
      "drop_factor": rules.SHARE_ABOVE_0,
      "weight_decay": rules.NOT_NEGATIVE,
      "eval_size": rules.SIZE,
      "standardise": rules.FLAG,
    },
  },
)
