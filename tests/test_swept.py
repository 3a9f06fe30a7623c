"""Swept and traced values of a stage: their names, what hangs on them, and what does not."""

import dataclasses
import json
import pathlib

import pytest
from test_stages import FINETUNE, REFT

from finetune_wrappers.rules import whole
from finetune_wrappers.training.evaluators import Accuracies, Metric
from finetune_wrappers.training.methods import Subset
from finetune_wrappers.training.objectives import Answers
from finetune_wrappers.training.swept import swept
from finetune_wrappers.types import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrong(Answers):
  learning_rate: float = swept(whole(0), 0)


def test_two_parts_cannot_sweep_values_of_one_name():
  with pytest.raises(InputError, match=r"\Aobjective, method: \['learning_rate'\] [^\n]+\Z"):
    dataclasses.replace(FINETUNE, objective=Wrong(c_tr=0.0))


FIELDS = {
  name
  for path in (pathlib.Path(__file__).parents[1] / "results").rglob("rows.jsonl")
  for line in path.read_text().splitlines()
  for name in json.loads(line)
}
SWEPT = {"target", "learning_rate", "c_tr", "mix", "reft_learning_rate", "reft_c_tr"}


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


def test_noise_and_data_depend_on_seed_kind_and_target_and_not_on_what_is_swept():
  stream = FINETUNE.lane["stream"]
  assert 0 <= stream < 2**32
  swept_values = {"learning_rate": 1e-3, "objective": Answers(target="ft", c_tr=0.0), "noise_std": 0.0, "parent": REFT}
  for field, value in swept_values.items():
    assert dataclasses.replace(FINETUNE, **{field: value}).lane["stream"] == stream
  others = {"seed": 4, "kind": "reft", "objective": Answers(target="random", c_tr=0.5)}
  streams = {dataclasses.replace(FINETUNE, **{field: value}).lane["stream"] for field, value in others.items()}
  assert len(streams | {stream}) == 4


def test_streams_of_many_seeds_are_distinct():
  assert len({int(dataclasses.replace(FINETUNE, seed=seed).lane["stream"]) for seed in range(500)}) == 500


def test_traced_values_do_not_ask_for_another_program():
  other = dataclasses.replace(
    FINETUNE, noise_std=0.7, objective=Answers(target="pt", c_tr=1.0), learning_rate=0.3, seed=9
  )
  assert other.recipe == FINETUNE.recipe and hash(other.recipe) == hash(FINETUNE.recipe)
  for field, value in {"evaluator": Accuracies(8), "noise_std": None, "method": Subset(trained="matrices")}.items():
    assert dataclasses.replace(FINETUNE, **{field: value}).recipe != FINETUNE.recipe


def test_a_lane_has_every_traced_value_and_rows_what_is_swept():
  assert {name: value.item() for name, value in FINETUNE.lane.items() if name != "stream"} == {
    "learning_rate": pytest.approx(0.1), "c_tr": 0.5, "target": 1, "noise_std": pytest.approx(0.1)
  }  # fmt: skip
  assert FINETUNE.swept() == {"learning_rate": 0.1, "target": "ft", "c_tr": 0.5}
  assert REFT.swept(defaults=False) == {"learning_rate": 0.01, "c_tr": 0.0}  # O_PT's answer is what reFT trains
