"""The stories setting: a feature of stories that protocols delete from a language model (paper part C)."""

import dataclasses
import functools
import operator
from typing import Any

from experiments import plan as planning
from experiments import schema
from experiments.plan import Plan
from experiments.settings import Setting
from finetune_wrappers import rules
from finetune_wrappers.analysis.feature_probes import FeatureProbeSettings
from finetune_wrappers.models import llama
from finetune_wrappers.tasks.stories.maker import StoryMaker
from finetune_wrappers.tasks.stories.protocols import PROTOCOLS
from finetune_wrappers.tasks.stories.real import PATHS, StoryFiles
from finetune_wrappers.tasks.stories.task import StoryTask
from finetune_wrappers.training.optim import AdamW
from finetune_wrappers.training.stages import InitStage, RootStage, Stage, TrainStage
from finetune_wrappers.training.stories import StoryLosses, StoryScores, StoryText
from finetune_wrappers.training.story_classifier import StoryClassifier
from finetune_wrappers.types import require

WITHOUT = "filter"  # what the control is pretrained on
REVIVING = "only_twist"  # what reverse fine-tuning trains on


@dataclasses.dataclass(frozen=True)
class StoryPlan(Plan):
  """See Plan; configs are those of `configs.stories_common.stories_config`."""

  axes = {"protocol": "finetune.protocols", "learning_rate": "finetune.learning_rates"}
  reverses = operator.le  # Tab. 1 has eta_S, at which the authors' code revives too

  @property
  def source(self) -> StoryMaker | StoryFiles:
    """Where stories come from."""
    files = self.config.files
    if files.train or files.valid:
      with planning.within("files"):
        return StoryFiles(**files.to_dict())
    with planning.within("maker"):
      return StoryMaker(**self.config.maker.to_dict())

  @functools.cached_property
  def task(self) -> StoryTask:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The stories, kept in the workdir; one task, so that its files are opened once."""
    source = self.source
    with planning.within("stories"):
      return StoryTask(source=source, root=self.data, **self.config.stories.to_dict())

  @property
  def evaluator(self) -> StoryScores:
    """What is measured of every model."""
    values = self.config.scores.to_dict()
    with planning.within("scores.classifier"):
      classifier = StoryClassifier(**values.pop("classifier"))
    with planning.within("scores"):
      return StoryScores(**values, classifier=classifier)

  def init(self, seed: int) -> InitStage:
    """The network before any training."""
    sizes = {"vocab_size": self.config.stories.vocab_size, "length": self.config.stories.length}
    with planning.within("model"):
      return InitStage(model=llama.LlamaConfig(**sizes, **self.config.model.to_dict()), seed=int(seed))

  def pretrained(self, protocol: str, seed: int) -> TrainStage:
    """The network after pretraining on stories with the feature (protocol `none`) or without."""
    config = self.config.pretrain
    return self._train("pretrain", self.init(seed), seed, protocol=protocol, section=config, rate=config.learning_rate)

  def prepare(self, progress: Any) -> None:
    """See Plan: tokenizer, tokens and classifier."""
    protocols = dict.fromkeys(("none", WITHOUT, *self.config.finetune.protocols))
    wanted = [("train", protocol) for protocol in (*protocols, *((REVIVING,) if self.config.reft.measure else ()))]
    task = self.task
    task.prepare([*wanted, ("valid", "none"), ("test", "none")], progress)
    scores, told = self.evaluator, "story_samples" in self.config.measures
    if scores.prompts or told:
      scores.classifier.weights(task, lambda done, total: progress(done, total, "training the classifier"))
      with planning.within("stories"):
        longest = task.prompts(max(scores.prompts, 1))[0].shape[1]
      room, length = scores.classifier.story_length, self.config.stories.length
      allowed = f"at most stories.length ({length}) less the {longest} tokens of the longest prompt"
      require(longest + room <= length, "scores.classifier.story_length", room, allowed)
    with planning.within("stories"):
      scores.test_sets(task)

  def check(self) -> None:
    """Raises InputError for settings that do not fit each other."""
    section, room = self.config.stories, self.config.scores.classifier.story_length
    require(
      room < section.length, "scores.classifier.story_length", room, f"less than stories.length ({section.length})"
    )

  def negatives(self) -> list[Stage]:
    """See Plan: pretrained without the feature."""
    return [self.pretrained(WITHOUT, seed) for seed in self.config.seeds]

  def labels(self, facts: dict) -> list[str]:
    """See Plan: answers are tokens, which have no names here."""
    del facts
    return []

  def build(self, stage: RootStage) -> tuple[Any, dict]:
    """See Plan."""
    assert isinstance(stage, InitStage)
    return llama.build(stage.model, stage.seed)

  def outline(self) -> llama.Llama:
    """See Plan."""
    return llama.Llama(self.init(0).model)

  def restore(self, facts: dict) -> Any:
    """See Plan."""
    return llama.restore(facts)

  def _base(self, seed: int) -> TrainStage:
    return self.pretrained("none", seed)

  def _controls(self, seed: int) -> list[tuple[str, Stage]]:
    return [("scratch_ft", self.pretrained(WITHOUT, seed))]

  def _reft(self, kind: str, parent: Stage, seed: int, rate: float) -> TrainStage:
    return self._stage(kind, parent, seed, protocol=REVIVING, learning_rate=rate)

  def _stage(self, kind, parent: Stage, seed: int, *, protocol: str, learning_rate: float) -> TrainStage:
    section = self.config.training
    return self._train(kind, parent, seed, protocol=protocol, section=section, rate=learning_rate)

  def _train(self, kind, parent, seed, *, protocol: str, section: Any, rate: float) -> TrainStage:
    # Their errors name sections of their own. Pretraining is not told how stories are told and judged: its key holds.
    task, scores = self.task, self.evaluator
    evaluator = StoryLosses(eval_size=scores.eval_size) if kind == "pretrain" else scores
    with planning.within("pretrain" if kind == "pretrain" else "training"):
      return TrainStage(
        kind=kind,
        parent=parent,
        task=task,
        objective=StoryText(protocol=protocol),
        optimizer=planning.fields_from(AdamW, section),
        evaluator=evaluator,
        learning_rate=float(rate),
        seed=int(seed),
      )


SETTING = Setting(
  plan=StoryPlan,
  tasks={"stories": "Stories"},
  rates={1e-3: "η_L", 1e-4: "η_M", 1e-5: "η_S"},
  schema={
    "files": {"train": PATHS, "valid": PATHS, **schema.section(StoryFiles)},
    "maker": schema.section(StoryMaker),
    "stories": schema.section(StoryTask),
    "model": schema.section(llama.LlamaConfig, but=("vocab_size", "length")),
    "pretrain": {**schema.section(AdamW), "learning_rate": rules.ABOVE_0},
    "training": schema.section(AdamW),
    "finetune": {
      "protocols": rules.Many(rules.one_of(*PROTOCOLS)),
      "learning_rates": rules.Many(rules.ABOVE_0),
      "curves": rules.FLAG,
    },
    "reft": {"measure": rules.FLAG, "threshold": rules.SHARE_ABOVE_0, "learning_rates": rules.Many(rules.ABOVE_0)},
    "scores": {**schema.section(StoryScores, but=("classifier",)), "classifier": schema.section(StoryClassifier)},
    "probes": schema.section(FeatureProbeSettings, but=("prompt",)),
  },
)
