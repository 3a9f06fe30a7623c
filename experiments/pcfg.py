"""The PCFG setting: stages of capabilities learned in pretraining."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from experiments import plan as planning
from experiments import schema
from finetune_wrappers.models import gpt
from finetune_wrappers.rules import one_of
from finetune_wrappers.tasks.pcfg_grammar import PAPER_GRAMMAR, parse
from finetune_wrappers.tasks.pcfg_tasks import PCFGTask
from finetune_wrappers.tasks.pcfg_text import PCFGText
from finetune_wrappers.training.optim import AdamWSettings
from finetune_wrappers.training.stages import InitStage, RootStage, Stage, TextStage
from finetune_wrappers.types import InputError, require


@dataclasses.dataclass(frozen=True)
class PCFGPlan:
  """See `experiments.plan.Plan`.

  Args:
    config: as `configs.pcfg_common.pcfg_config` lays it out.
    task_name: `counting` or `index`.
  """

  config: ConfigDict
  task_name: str
  setting = "pcfg"

  @property
  def text(self) -> PCFGText:
    """Text and pretraining tasks, from their settings in the config."""
    values = self.config.text.to_dict()
    rules = values.pop("rules")
    with planning.within("text"):
      return PCFGText(grammar=parse(rules) if rules else PAPER_GRAMMAR, **values)

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

  def bases(self) -> list[Stage]:
    """Pretrained models, every n_iters, prior and seed."""
    return [self.pretrained(prior, seed, steps) for steps, prior, seed in self._sweep()]

  def finetunes(self) -> list[TextStage]:
    """Fine-tuning of every pretrained model, every target, learning rate, C_Tr and share of pretraining samples."""
    finetune = self.config.finetune
    return [
      self._stage("finetune", self.pretrained(prior, seed, steps), target, rate, c_tr, seed, prior, mix)
      for target in finetune.targets
      for rate in finetune.learning_rates
      for mix in finetune.mixes
      for c_tr in finetune.c_trs
      for steps, prior, seed in self._sweep()
    ]

  def refts(self) -> list[TextStage]:
    """See Plan."""
    return [
      dataclasses.replace(self._reft("reft", parent, rate, parent.seed), prior=parent.prior)
      for parent in self.finetunes()
      for rate in self.config.reft.learning_rates
      if rate < parent.learning_rate
    ]

  def controls(self) -> list[TextStage]:
    """Scr. + FT: pretrained without O_PT, then trained on it by reFT's recipe; with `reft.scratch` untrained too."""
    config = self.config
    found = []
    for rate in config.reft.learning_rates:
      for seed in config.seeds:
        for steps in config.pretrain.steps:
          parent = self.pretrained(config.pretrain.control_prior, seed, steps)
          found.append(self._reft("scratch_ft", parent, rate, seed))
        if config.reft.scratch:
          found.append(self._reft("scratch", self.init(seed), rate, seed))
    return found

  def negatives(self) -> list[Stage]:
    """Models that never had O_PT: pretrained without it."""
    config = self.config
    return [self.pretrained(config.pretrain.control_prior, s, n) for n in config.pretrain.steps for s in config.seeds]

  def swept(self, stage: Stage) -> dict[str, Any]:
    """See Plan; with the names of the prior and n_iters."""
    if not isinstance(stage, TextStage):
      return {}
    own = {} if stage.kind == "pretrain" else planning.finetuning_values(stage)
    base = stage
    while isinstance(base, TextStage) and base.kind != "pretrain":
      base = base.parent
    if isinstance(base, TextStage):
      own |= {"prior": self._prior_name(base.prior), "pretraining_steps": base.settings.steps}
    return own

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

  def _sweep(self) -> list[tuple[int, str, int]]:
    config = self.config
    return [
      (n, prior, seed) for n in config.pretrain.steps for prior in config.finetune.priors for seed in config.seeds
    ]

  def _reft(self, kind: str, parent: Stage, rate: float, seed: int) -> TextStage:
    return self._stage(kind, parent, "pt", rate, self.config.reft.c_tr, seed, self.config.pretrain.control_prior, 0.0)

  def _stage(self, kind, parent, target, rate, c_tr, seed, prior: str, mix) -> TextStage:
    rate, c_tr, mix = float(rate), float(c_tr), float(mix)
    settings = self._finetuning(mixed=mix > 0)
    return TextStage(kind, parent, self.task, target, settings, rate, c_tr, int(seed), self._prior(prior), mix)

  def _prior(self, name: str) -> tuple[float, ...]:
    return tuple(float(share) for share in self.config.priors[name])

  def _prior_name(self, prior: tuple[float, ...]) -> str:
    return next(name for name in self.config.priors if self._prior(name) == prior)

  def _finetuning(self, mixed: bool) -> AdamWSettings:
    with planning.within("training"):
      return planning.settings_from(AdamWSettings, self.config.training, mixed=mixed)

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


def plans(config: ConfigDict) -> list[PCFGPlan]:
  """A plan for each task of the config.

  Raises:
    InputError: for a key that holds what it cannot, or priors that do not fit each other.
  """
  schema.check(config)
  planning.check_reft(config)
  fractions = config.pretrain.eval_fractions
  ends = fractions[-1] == 1 and fractions == tuple(sorted(fractions))
  require(ends, "pretrain.eval_fractions", fractions, "rising shares, the last 1")
  found = [PCFGPlan(config, name) for name in config.tasks]
  _check_priors(config, len(found[0].text.grammar.terminals))
  return found


def _check_priors(config: ConfigDict, operands: int) -> None:
  """Raises InputError for a prior that is none, or is another's twin, or a control that would meet O_PT."""
  control, names = config.pretrain.control_prior, {}
  for name, shares in config.priors.items():
    fine = len(shares) == operands and abs(sum(shares) - 1) < 1e-6
    require(fine, f"priors.{name}", shares, f"{operands} shares that sum to 1, one for each operand")
    twin = names.setdefault(shares, name)  # rows name a prior by its shares
    require(twin == name, f"priors.{name}", shares, f"other shares than those of {twin!r}")
  one_of(*config.priors).check("pretrain.control_prior", control)
  for name in config.finetune.priors:
    one_of(*config.priors).check("finetune.priors", name)
  shares = config.priors[control]
  require(shares[0] == 0, f"priors.{control}", shares, "no share of O_PT for the control (pretrain.control_prior)")
  if control in config.finetune.priors:
    raise InputError(f"finetune.priors: {control!r} never had O_PT; it is the control (pretrain.control_prior)")
