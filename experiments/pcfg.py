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
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.objectives import MixedAnswers, Text
from finetune_wrappers.training.optim import AdamW
from finetune_wrappers.training.stages import InitStage, RootStage, Stage, TrainStage, ancestors
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

  @property
  def evaluator(self) -> Accuracies:
    """See Plan."""
    return Accuracies(self.config.training.eval_size)

  def bases(self) -> list[Stage]:
    """Pretrained models, every n_iters, prior and seed."""
    return [self.pretrained(prior, seed, steps) for steps, prior, seed in self._sweep()]

  def finetunes(self) -> list[Any]:
    """Fine-tuning of every pretrained model, every target, learning rate, C_Tr and share of pretraining samples."""
    finetune = self.config.finetune
    return [
      self._stage("finetune", self.pretrained(prior, seed, steps), self._mixed(target, c_tr, prior, mix), rate, seed)
      for target in finetune.targets
      for rate in finetune.learning_rates
      for mix in finetune.mixes
      for c_tr in finetune.c_trs
      for steps, prior, seed in self._sweep()
    ]

  def refts(self) -> list[TrainStage]:
    """See Plan."""
    return [
      self._reft("reft", parent, rate, parent.seed, parent.objective.prior)
      for parent in self.finetunes()
      for rate in self.config.reft.learning_rates
      if rate < parent.learning_rate
    ]

  def controls(self) -> list[TrainStage]:
    """Scr. + FT: pretrained without O_PT, then trained on it by reFT's recipe; with `reft.scratch` untrained too."""
    config, found = self.config, []
    prior = self._prior(config.pretrain.control_prior)
    for rate in config.reft.learning_rates:
      for seed in config.seeds:
        for steps in config.pretrain.steps:
          parent = self.pretrained(config.pretrain.control_prior, seed, steps)
          found.append(self._reft("scratch_ft", parent, rate, seed, prior))
        if config.reft.scratch:
          found.append(self._reft("scratch", self.init(seed), rate, seed, prior))
    return found

  def negatives(self) -> list[Stage]:
    """Models that never had O_PT: pretrained without it."""
    config = self.config
    return [self.pretrained(config.pretrain.control_prior, s, n) for n in config.pretrain.steps for s in config.seeds]

  def swept(self, stage: Stage) -> dict[str, Any]:
    """See Plan; with the names of the prior and n_iters."""
    own = planning.swept_values(stage) if isinstance(stage, TrainStage) and stage.kind != "pretrain" else {}
    base: Any  # a union of stages of which only one kind is asked for more
    for base in ancestors(stage):
      if base.kind == "pretrain":
        own |= {"prior": self._prior_name(base.objective.prior), "pretraining_steps": base.optimizer.steps}
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

  def _mixed(self, target: str, c_tr: float, prior: str, mix: float) -> MixedAnswers:
    shares = self._prior(prior)
    return MixedAnswers(target=target, c_tr=float(c_tr), prior=shares, mix=float(mix), mixed=mix > 0)

  def _reft(self, kind: str, parent: Stage, rate: float, seed: int, prior: tuple[float, ...]) -> TrainStage:
    objective = MixedAnswers(target="pt", c_tr=float(self.config.reft.c_tr), prior=prior)
    return self._stage(kind, parent, objective, rate, seed)

  def _stage(self, kind: str, parent: Stage, objective: MixedAnswers, rate: float, seed: int) -> TrainStage:
    training = self.config.training
    with planning.within("training"):
      return TrainStage(
        kind=kind,
        parent=parent,
        task=self.task,
        objective=objective,
        optimizer=planning.fields_from(AdamW, training),
        evaluator=Accuracies(training.eval_size),
        learning_rate=float(rate),
        seed=int(seed),
      )

  def _prior(self, name: str) -> tuple[float, ...]:
    return tuple(float(share) for share in self.config.priors[name])

  def _prior_name(self, prior: tuple[float, ...]) -> str:
    return next(name for name in self.config.priors if self._prior(name) == prior)


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
