"""Keys of stages: what changes them, what does not, and what a stage refuses."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import pytest

from finetune_wrappers.models.gpt import GPTConfig
from finetune_wrappers.rules import whole
from finetune_wrappers.tasks.pcfg_tasks import PCFGTask
from finetune_wrappers.tasks.pcfg_text import PCFGText
from finetune_wrappers.tasks.tracr_tasks import CounterTask, MaxIdentifierTask
from finetune_wrappers.training import stages
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.methods import Subset
from finetune_wrappers.training.objectives import Answers, MixedAnswers, Text
from finetune_wrappers.training.optim import SGD, AdamW
from finetune_wrappers.training.stages import CompileStage, GivenStage, InitStage, TrainStage, ancestors
from finetune_wrappers.training.swept import swept
from finetune_wrappers.types import InputError

_EXAMPLE = """
import dataclasses
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.objectives import Answers
from finetune_wrappers.training.optim import SGD
from finetune_wrappers.training.stages import CompileStage, TrainStage
task = CounterTask(num_letters=5, vocab_size=4, num_pads=1)
optimizer = SGD(
  steps=10, batch_size=4, warmup_steps=2, final_fraction=0.01, momentum=0.9, clip_norm=1.0, microbatches=1,
  eval_steps=(0, 5, 10),
)
compiled = CompileStage(task=task, operand="pt", reading="literal", mlp_exactness=0)
finetune = TrainStage(
  kind="finetune", parent=compiled, task=task, objective=Answers(target="ft", c_tr=0.5), optimizer=optimizer,
  evaluator=Accuracies(16), learning_rate=0.1, noise_std=0.1, seed=3,
)
reft = dataclasses.replace(
  finetune, kind="reft", parent=finetune, objective=Answers(target="pt", c_tr=0.0), learning_rate=0.01
)
"""
_NAMES: dict = {}
exec(_EXAMPLE, _NAMES)
COMPILED, FINETUNE, REFT = (_NAMES[name] for name in ("compiled", "finetune", "reft"))
# As the first release made them.
PINNED = {"compiled": "eb763786f3588b3d", "finetune": "61449003af9b13c4", "reft": "32de48adfeb333e4"}

CHANGES = {
  CompileStage: {
    "task": dataclasses.replace(COMPILED.task, q=2),
    "operand": "ft",
    "reading": "constant_true",
    "mlp_exactness": 100,
  },
  TrainStage: {
    "kind": "scratch",
    "parent": dataclasses.replace(COMPILED, operand="ft"),
    "task": dataclasses.replace(COMPILED.task, q=2),
    "objective": dataclasses.replace(FINETUNE.objective, target="random"),
    "method": Subset(trained="blocks_1"),
    "optimizer": dataclasses.replace(FINETUNE.optimizer, batch_size=8),
    "evaluator": Accuracies(8),
    "learning_rate": 0.1000001,
    "noise_std": None,
    "seed": 4,
  },
  CounterTask: {"num_letters": 6, "vocab_size": 5, "num_pads": 2, "q": -1, "distinct_answers_in_test": False},
  MaxIdentifierTask: {"num_letters": 8, "vocab_size": 25, "num_pads": 0, "q": 4, "rank_pt": 4, "rank_ft": 8},
  SGD: {
    "steps": 12,
    "batch_size": 6,
    "warmup_steps": 3,
    "final_fraction": 0.1,
    "momentum": 0.5,
    "dampening": 0.5,
    "clip_norm": 0.0,
    "microbatches": 2,
    "eval_steps": (0, 10),
  },
  Answers: {"target": "random", "c_tr": 0.25, "positions": "letters", "logit_scale": 2.0},
  Subset: {"trained": "matrices"},
  Accuracies: {"eval_size": 8},
}
PARTS = {SGD: "optimizer", Answers: "objective", Subset: "method", Accuracies: "evaluator"}


def replaced(value, field):
  changes = {field: CHANGES[type(value)][field]}
  if field == "steps":
    changes["eval_steps"] = (0, 5, changes["steps"])
  return dataclasses.replace(value, **changes)


@pytest.mark.parametrize("kind", CHANGES)
def test_no_field_is_forgotten_here(kind):
  assert {field.name for field in dataclasses.fields(kind)} == set(CHANGES[kind])


@pytest.mark.parametrize("field", CHANGES[CompileStage])
def test_every_field_of_a_compile_stage_is_in_its_key_and_in_its_descendants(field):
  changed = replaced(COMPILED, field)
  finetune = dataclasses.replace(FINETUNE, parent=changed)
  reft = dataclasses.replace(REFT, parent=finetune)
  for was, now in ((COMPILED, changed), (FINETUNE, finetune), (REFT, reft)):
    assert now.key != was.key


@pytest.mark.parametrize("field", CHANGES[TrainStage])
def test_every_field_of_a_train_stage_is_in_its_key_and_in_its_childs(field):
  changed = replaced(FINETUNE, field)
  assert changed.key != FINETUNE.key
  assert dataclasses.replace(REFT, parent=changed).key != REFT.key


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind in PARTS for field in CHANGES[kind]])
def test_every_field_of_a_part_is_in_the_key(kind, field):
  changed = replaced(getattr(FINETUNE, PARTS[kind]), field)
  assert dataclasses.replace(FINETUNE, **{PARTS[kind]: changed}).key != FINETUNE.key


@pytest.mark.parametrize("task", [COMPILED.task, MaxIdentifierTask(q=3)], ids=lambda task: task.name)
def test_every_field_of_a_task_is_in_the_key(task):
  keys = {dataclasses.replace(COMPILED, task=replaced(task, field)).key for field in CHANGES[type(task)]}
  keys.add(dataclasses.replace(COMPILED, task=task).key)
  assert len(keys) == 1 + len(CHANGES[type(task)])


def test_tasks_of_two_classes_with_the_same_fields_have_two_keys():
  fields = [(field.name, field.type, field) for field in dataclasses.fields(CounterTask)]
  namesake = dataclasses.make_dataclass("OtherTask", fields, frozen=True)(**dataclasses.asdict(COMPILED.task))
  assert dataclasses.replace(COMPILED, task=namesake).key != COMPILED.key


def test_the_schema_is_in_the_key(monkeypatch):
  monkeypatch.setattr(stages, "SCHEMA", stages.SCHEMA + 1)
  assert dataclasses.replace(COMPILED).key != COMPILED.key


def test_equal_stages_have_equal_keys():
  names: dict = {}
  exec(_EXAMPLE, names)
  assert names["reft"] is not REFT and names["reft"].key == REFT.key
  assert re.fullmatch("[0-9a-f]{16}", REFT.key)


def test_keys_do_not_change_between_processes_and_versions():
  script = f"{_EXAMPLE}\nimport json; print(json.dumps([compiled.key, finetune.key, reft.key]))"
  environment = {**os.environ, "PYTHONHASHSEED": "4711"}
  done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
  found = [COMPILED.key, FINETUNE.key, REFT.key]
  assert json.loads(done.stdout) == found
  assert found == list(PINNED.values()), (
    "Keys of stages have changed, so every finished workdir is trained again. If that is what you want (a new field,"
    " or SCHEMA raised because results change), pin the new keys here; otherwise give the field back its old spelling."
  )


def test_ancestors_are_the_chain_oldest_first():
  assert ancestors(REFT) == [COMPILED, FINETUNE, REFT]
  assert ancestors(COMPILED) == [COMPILED]


@pytest.mark.parametrize(
  ("field", "bad"),
  [
    ("kind", "compile"),
    ("kind", "fine-tune"),
    ("kind", ""),
    ("learning_rate", 0.0),
    ("learning_rate", -0.1),
    ("learning_rate", float("nan")),
    ("learning_rate", float("inf")),
    ("noise_std", -1.0),
    ("seed", -1),
  ],
)
def test_a_train_stage_refuses_in_one_line_that_names_the_field(field, bad):
  with pytest.raises(InputError, match=rf"\A{field}: [^\n]+\Z"):
    dataclasses.replace(FINETUNE, **{field: bad})


@pytest.mark.parametrize(
  ("field", "bad"), [("target", "O_PT"), ("target", ""), ("c_tr", -0.01), ("c_tr", 1.01), ("c_tr", float("nan"))]
)
def test_an_objective_refuses_in_one_line_that_names_the_field(field, bad):
  with pytest.raises(InputError, match=rf"\A{field}: [^\n]+\Z"):
    dataclasses.replace(FINETUNE.objective, **{field: bad})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrong(Answers):
  learning_rate: float = swept(whole(0), 0)


def test_two_parts_cannot_sweep_values_of_one_name():
  with pytest.raises(InputError, match=r"\Aobjective, method: \['learning_rate'\] [^\n]+\Z"):
    dataclasses.replace(FINETUNE, objective=Wrong(c_tr=0.0))


def test_a_compile_stage_refuses_another_operand():
  with pytest.raises(InputError, match=r"\Aoperand: [^\n]*pt, ft\Z"):
    dataclasses.replace(COMPILED, operand="random")


@pytest.mark.parametrize("c_tr", [0.0, 1.0])
def test_the_ends_of_the_range_of_c_tr_are_allowed(c_tr):
  assert Answers(c_tr=c_tr).c_tr == c_tr


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


PRETRAIN_KEY, MIXED_KEY = "deb02bb02ff5151f", "3b3c6f6d9fa9975e"


def adamw(**changed):
  values = {
    "steps": 10, "batch_size": 4, "warmup_steps": 2, "final_fraction": 0.01, "clip_norm": 1.0, "microbatches": 1,
    "eval_steps": (10,), "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1,
  }  # fmt: skip
  return AdamW(**(values | changed))


def gpt_stages():
  """(pretraining, fine-tuning with samples mixed in)."""
  text = PCFGText(window=10, counted=6, occurrence=1, token_place=4, farthest=8)
  task, common = PCFGTask(text, "counting"), {"optimizer": adamw(), "evaluator": Accuracies(16), "seed": 1}
  init = InitStage(model=GPTConfig(vocab_size=20, length=18, blocks=1, heads=2, width=8), seed=1)
  pretrain = TrainStage(
    kind="pretrain", parent=init, task=task, objective=Text(prior=(0.9, 0.1, 0.0), answer_weight=1.0),
    learning_rate=1e-3, **common,
  )  # fmt: skip
  mixed = MixedAnswers(target="ft", c_tr=0.5, prior=(0.9, 0.1, 0.0), mix=0.1, mixed=True)
  finetune = dataclasses.replace(pretrain, kind="finetune", parent=pretrain, objective=mixed, learning_rate=1e-4)
  return pretrain, finetune


def test_stages_of_gpts_keep_the_keys_of_the_first_release():
  assert [stage.key for stage in gpt_stages()] == [PRETRAIN_KEY, MIXED_KEY]


def test_what_the_first_release_could_not_say_is_said_by_its_own_fields():
  for method in (Subset(trained="blocks_0"), Subset(trained="blocks_1")):
    said = stages.describe(dataclasses.replace(FINETUNE, method=method))
    assert said["class"] == "TrainStage" and said["method"] == {"class": "Subset", "trained": method.trained}
    assert said["objective"] == {"class": "Answers", "target": "ft", "c_tr": 0.5, "positions": "answer",
                                 "logit_scale": 1.0}  # fmt: skip


def test_a_given_model_has_a_key_only_with_a_checksum_of_its_parameters():
  one, other = (GivenStage(name="mine", checksum=checksum) for checksum in ("0a", "0b"))
  assert one.key != other.key
  with pytest.raises(InputError, match=r"\Achecksum: [^\n]+\Z"):
    dataclasses.replace(FINETUNE, parent=GivenStage(name="mine")).key  # noqa: B018
