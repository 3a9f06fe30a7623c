"""The PCFG setting: stages of capabilities learned in pretraining."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from experiments import plan as planning
from experiments import schema
from experiments.plan import Plan
from experiments.settings import Setting
from finetune_wrappers import rules
from finetune_wrappers.analysis import PruneSettings, masks
from finetune_wrappers.models import gpt
from finetune_wrappers.tasks.pcfg_grammar import PAPER_GRAMMAR, parse
from finetune_wrappers.tasks.pcfg_tasks import PCFGTask
from finetune_wrappers.tasks.pcfg_text import PCFGText
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.objectives import MixedAnswers, Text
from finetune_wrappers.training.optim import AdamW
from finetune_wrappers.training.stages import InitStage, RootStage, Stage, TrainStage
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
      return InitStage(model=gpt.GPTConfig(**sizes, **self.config.model.to_dict()), seed=int(seed))

  def pretrained(self, prior: str, seed: int, steps: int) -> TrainStage:
    """The network after `steps` iterations of pretraining; answers for Counting are what its curves show."""
    config = self.config.pretrain
    with planning.within("pretrain"):
      return TrainStage(
        kind="pretrain",
        parent=self.init(seed),
        task=PCFGTask(self.text, "counting"),
        objective=Text(prior=self._prior(prior), answer_weight=config.answer_weight),
        optimizer=planning.fields_from(
          AdamW,
          config,
          steps=int(steps),
          warmup_steps=int(config.warmup_fraction * steps),
          eval_steps=tuple(sorted({round(fraction * steps) for fraction in config.eval_fractions})),
        ),
        evaluator=Accuracies(config.eval_size),
        learning_rate=float(config.learning_rate),
        seed=int(seed),
      )

  def check(self) -> None:
    """Raises InputError for shares of pretraining that do not rise to 1, or priors that do not fit each other."""
    fractions = self.config.pretrain.eval_fractions
    ends = fractions[-1] == 1 and fractions == tuple(sorted(fractions))
    require(ends, "pretrain.eval_fractions", fractions, "rising shares, the last 1")
    _check_priors(self.config, len(self.text.grammar.terminals))

  def negatives(self) -> list[Stage]:
    """Models that never had O_PT: pretrained without it."""
    config = self.config
    return [self.pretrained(config.pretrain.control_prior, s, n) for n in config.pretrain.steps for s in config.seeds]

  def swept(self, stage: Any) -> dict[str, Any]:
    """See Plan; with the name of the prior and n_iters of the pretraining."""
    if stage.kind == "init":
      return {}
    if stage.kind == "pretrain":
      return {"prior": self._prior_name(stage.objective.prior), "pretraining_steps": stage.optimizer.steps}
    return {**super().swept(stage), **self.swept(stage.parent)}

  def labels(self, facts: dict) -> list[str]:
    """Answers are tokens."""
    del facts
    return list(self.text.symbols)

  def build(self, stage: RootStage) -> tuple[Any, dict]:
    """See Plan."""
    assert isinstance(stage, InitStage)
    return gpt.build(stage.model, stage.seed)

  def outline(self) -> gpt.GPT:
    """See Plan."""
    return gpt.GPT(self.init(0).model)

  def restore(self, facts: dict) -> Any:
    """See Plan."""
    return gpt.restore(facts)

  def _base(self, seed: int, *, pretraining_steps: int, prior: str) -> TrainStage:
    return self.pretrained(prior, seed, pretraining_steps)

  def _controls(self, seed: int) -> list[tuple[str, Stage]]:
    """Scr. + FT: pretrained without O_PT; with `reft.scratch` also the network before any training."""
    config = self.config
    never = [self.pretrained(config.pretrain.control_prior, seed, steps) for steps in config.pretrain.steps]
    scratch = [("scratch", self.init(seed))] if config.reft.scratch else []
    return [*(("scratch_ft", model) for model in never), *scratch]

  def _stage(self, kind, parent: Any, seed, *, target, learning_rate, c_tr, mix=0.0) -> TrainStage:
    """A network that was never trained has the control's prior, of which nothing is mixed in."""
    untrained = parent.kind == "init"
    prior = self._prior(self.config.pretrain.control_prior) if untrained else parent.objective.prior
    with planning.within("training"):
      return TrainStage(
        kind=kind,
        parent=parent,
        task=self.task,
        objective=MixedAnswers(target=target, c_tr=float(c_tr), prior=prior, mix=float(mix), mixed=mix > 0),
        optimizer=planning.fields_from(AdamW, self.config.training),
        evaluator=self.evaluator,
        learning_rate=float(learning_rate),
        seed=int(seed),
      )

  def _prior(self, name: str) -> tuple[float, ...]:
    return tuple(float(share) for share in self.config.priors[name])

  def _prior_name(self, prior: tuple[float, ...]) -> str:
    return next(name for name in self.config.priors if self._prior(name) == prior)


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


_SCOPES = ", ".join(scope for scope in masks.SCOPES if scope != "near_zero")  # that is for compiled weights

SETTING = Setting(
  plan=PCFGPlan,
  tasks={"counting": "Counting", "index": "Index"},
  rates={1e-4: "η_L", 1e-5: "η_M", 1e-6: "η_S"},
  schema={
    **schema.ANSWERS,
    "text": schema.section(
      PCFGText, rules=rules.Many(rules.text("a rule: parent -> child child [probability]", r".+"), empty=True)
    ),
    "counting": schema.section(PCFGTask, but=("name",)),
    "index": schema.section(PCFGTask, but=("name",)),
    "model": schema.section(gpt.GPTConfig, but=("vocab_size", "length")),
    "priors": schema.Named(rules.Many(rules.SHARE, once=False)),
    "pretrain": {
      **schema.section(AdamW, but=("warmup_steps", "eval_steps")),
      **schema.section(Accuracies),
      "steps": rules.Many(rules.STEPS),
      "learning_rate": rules.ABOVE_0,
      "control_prior": schema.WORD,
      "warmup_fraction": rules.SHARE_BELOW_1,
      "eval_fractions": rules.Many(rules.SHARE),
      "answer_weight": rules.rules_of(Text)["answer_weight"],
    },
    "training": {**schema.section(AdamW), **schema.section(Accuracies)},
    "finetune": {**schema.FINETUNE, "priors": rules.Many(schema.WORD), "mixes": rules.Many(rules.SHARE)},
    "reft": {**schema.REFT, "scratch": rules.FLAG},
    "pruning": {
      **schema.section(PruneSettings, but=("neuron_axes",)),
      "scopes": rules.Many(
        rules.text(f"{_SCOPES} or a path as blocks_1/attn/qkv/kernel", r"(?!near_zero$)[a-z_0-9/]{1,200}")
      ),
      "single_weights": rules.Rule(
        "0, all that learned weights allow", lambda value: rules.COUNT.fits(value) and value == 0
      ),
    },
  },
)
