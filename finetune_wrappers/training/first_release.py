"""How the first release wrote stages down, whose keys are hashes of that text.

It knew two kinds of training and kept what is an objective, a method and an evaluator today among the optimizer's
settings. A stage that it could say is still said this way, so that old workdirs are read. The list is closed: what came
later, a kind or the value of a field, is said by its own fields.
"""

import dataclasses
from typing import Any

from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.methods import TRAINED, Subset
from finetune_wrappers.training.objectives import Answers, MixedAnswers, Text
from finetune_wrappers.training.optim import SGD, AdamW


def fields_of(stage: Any) -> dict[str, Any] | None:
  """Class and fields of a TrainStage in the first release's words; None for what it could not say."""
  parts = (stage.objective, stage.optimizer, stage.method, stage.evaluator)
  say = _SAID.get(tuple(map(type, parts)))
  if say is None or not known_fields(stage).keys() <= _STAGE:
    return None
  told = (stage.objective, stage.method, stage.evaluator)
  return say(stage) if all(known_fields(part).keys() <= _FIELDS[type(part)] for part in told) else None


def known_fields(value: Any) -> dict[str, Any]:
  """A dataclass's fields but those that came later and have their default, so that older keys stay valid."""
  fields = {field.name: (getattr(value, field.name), field) for field in dataclasses.fields(value)}
  return {n: v for n, (v, field) in fields.items() if not (field.metadata.get("came_later") and v == field.default)}


def _answers(stage: Any) -> dict[str, Any] | None:
  objective = stage.objective
  if stage.noise_std is None or stage.method.trained not in TRAINED:
    return None
  own = {"loss_positions": objective.positions, "logit_scale": objective.logit_scale}
  own |= {"trained": stage.method.trained, "noise_std": stage.noise_std}
  return _said(stage, "TrainStage", "TrainSettings", own, {"target": objective.target, "c_tr": objective.c_tr})


def _mixed_answers(stage: Any) -> dict[str, Any] | None:
  objective = stage.objective
  if (objective.positions, objective.logit_scale) != ("answer", 1.0) or not _plain(stage):
    return None
  own = {"loss_positions": "answer", "answer_weight": 0.0, "mixed": objective.mixed}
  lane = {"target": objective.target, "c_tr": objective.c_tr, "prior": objective.prior, "mix": objective.mix}
  return _said(stage, "TextStage", "AdamWSettings", own, lane)


def _text(stage: Any) -> dict[str, Any] | None:
  if not _plain(stage):
    return None
  own = {"loss_positions": "text", "answer_weight": stage.objective.answer_weight, "mixed": False}
  lane = {"target": "pt", "c_tr": 0.0, "prior": stage.objective.prior, "mix": 0.0}
  return _said(stage, "TextStage", "AdamWSettings", own, lane)


def _plain(stage: Any) -> bool:
  return stage.method == Subset() and stage.noise_std is None


def _said(stage: Any, kind: str, settings_kind: str, settings: dict[str, Any], lane: dict[str, Any]) -> dict[str, Any]:
  optimizer = known_fields(stage.optimizer)  # all of them: a field that came later is one more of its settings
  settings = {"class": settings_kind, "eval_size": stage.evaluator.eval_size, **optimizer, **settings}
  common = {name: getattr(stage, name) for name in ("kind", "parent", "task", "learning_rate", "seed")}
  return {"class": kind, **common, **lane, "settings": settings}


_SAID = {
  (Answers, SGD, Subset, Accuracies): _answers,
  (MixedAnswers, AdamW, Subset, Accuracies): _mixed_answers,
  (Text, AdamW, Subset, Accuracies): _text,
}
# Fields that the functions above put into words; an optimizer's are all said.
_STAGE = {
  "kind", "parent", "task", "objective", "method", "optimizer", "evaluator", "learning_rate", "noise_std", "seed"
}  # fmt: skip
_ANSWERS = {"target", "c_tr", "positions", "logit_scale"}
_FIELDS = {
  Answers: _ANSWERS,
  MixedAnswers: {*_ANSWERS, "prior", "mix", "mixed"},
  Text: {"prior", "answer_weight"},
  Subset: {"trained"},
  Accuracies: {"eval_size"},
}
