"""Fields of stages: names that rows have already, and fields that come later. Stages are test_stages'."""

import dataclasses
import json
import pathlib

import pytest
from test_stages import FINETUNE, gpt_stages

from finetune_wrappers.rules import ruled, whole
from finetune_wrappers.training import first_release
from finetune_wrappers.training.evaluators import Accuracies, Metric
from finetune_wrappers.training.methods import Subset
from finetune_wrappers.training.objectives import Answers, MixedAnswers, Text
from finetune_wrappers.training.optim import SGD, AdamW
from finetune_wrappers.training.stages import TrainStage
from finetune_wrappers.training.swept import swept
from finetune_wrappers.types import InputError

FIELDS = {
  name
  for path in (pathlib.Path(__file__).parents[1] / "results").rglob("rows.jsonl")
  for line in path.read_text().splitlines()
  for name in json.loads(line)
}
SWEPT = {"target", "learning_rate", "c_tr", "mix", "protocol", "reft_learning_rate", "reft_c_tr"}


@pytest.mark.parametrize("name", sorted({*FIELDS, "stream", "reft_learning_rate", "share"} - (SWEPT - {"c_tr"})))
def test_a_swept_value_has_a_name_that_no_row_and_no_lane_has_for_something_else(name):
  """Every field of the shipped rows that is no swept value, and the field of an evaluator's own metric."""

  @dataclasses.dataclass(frozen=True)
  class Sharing(Accuracies):
    def metrics(self, task):
      return (Metric("acc_pt", (("c_te", 0), ("share", 1))),)

  named = dataclasses.make_dataclass("Named", [(name, float, swept(whole(0), 0))], bases=(Subset,), frozen=True,
                                     kw_only=True)  # fmt: skip
  with pytest.raises(InputError, match=rf"\Aobjective, method: \['{name}'\] [^\n]+\Z"):
    dataclasses.replace(FINETUNE, method=named(), evaluator=Sharing(16))


def test_a_metric_has_no_field_that_every_row_has():
  class Seeded(Accuracies):
    def metrics(self, task):
      return (Metric("acc_pt", (("seed", 0),)),)

  with pytest.raises(InputError, match=r"\Aobjective, method: \['seed'\] [^\n]+\Z"):
    dataclasses.replace(FINETUNE, evaluator=Seeded(16))


@pytest.mark.parametrize("kind", [Answers, Subset, Accuracies, SGD, TrainStage, MixedAnswers, Text, AdamW])
def test_a_field_that_comes_later_changes_a_key_only_by_another_value_than_its_default(monkeypatch, kind):
  """The class gets one more field, as it would in its source."""
  later = dataclasses.make_dataclass(
    kind.__name__, [("later", int, ruled(whole(0), 0, came_later=True))], bases=(kind,), frozen=True, kw_only=True
  )
  for names in (first_release._SAID, first_release._FIELDS):
    for own in list(names):
      new = tuple(later if part is kind else part for part in own) if isinstance(own, tuple) else later
      if new != own and (isinstance(own, tuple) or own is kind):
        monkeypatch.setitem(names, new, names[own])
  pretrain, mixed = gpt_stages()
  stage = {MixedAnswers: mixed, AdamW: mixed, Text: pretrain}.get(kind, FINETUNE)

  def with_later(value):
    if kind is TrainStage:
      return later(**vars_of(stage), later=value)
    place = next(name for name in vars_of(stage) if type(getattr(stage, name)) is kind)
    return dataclasses.replace(stage, **{place: later(**vars_of(getattr(stage, place)), later=value)})

  keys = [with_later(value).key for value in (0, 1, 2)]
  assert keys[0] == stage.key and len(set(keys)) == 3


def vars_of(value):
  return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
