"""Keys of stages: what changes them, what does not, and what a stage refuses."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import pytest

from finetune_wrappers.tasks.tracr_tasks import CounterTask, MaxIdentifierTask
from finetune_wrappers.training import stages
from finetune_wrappers.training.optim import TrainSettings
from finetune_wrappers.training.stages import CompileStage, TrainStage, ancestors
from finetune_wrappers.types import InputError

_EXAMPLE = """
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.training.optim import TrainSettings
from finetune_wrappers.training.stages import CompileStage, TrainStage
task = CounterTask(num_letters=5, vocab_size=4, num_pads=1)
settings = TrainSettings(
  steps=10, batch_size=4, warmup_steps=2, final_fraction=0.01, momentum=0.9, clip_norm=1.0, noise_std=0.1,
  trained="all", loss_positions="answer", logit_scale=1.0, microbatches=1, eval_steps=(0, 5, 10), eval_size=16,
)
compiled = CompileStage(task, "pt", "literal", 0)
finetune = TrainStage("finetune", compiled, task, "ft", settings, 0.1, 0.5, 3)
reft = TrainStage("reft", finetune, task, "pt", settings, 0.01, 0.0, 3)
"""
_NAMES: dict = {}
exec(_EXAMPLE, _NAMES)
COMPILED, FINETUNE, REFT = (_NAMES[name] for name in ("compiled", "finetune", "reft"))
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
    "target": "random",
    "settings": dataclasses.replace(FINETUNE.settings, batch_size=8),
    "learning_rate": 0.1000001,
    "c_tr": 0.25,
    "seed": 4,
  },
  CounterTask: {"num_letters": 6, "vocab_size": 5, "num_pads": 2, "q": -1, "distinct_answers_in_test": False},
  MaxIdentifierTask: {"num_letters": 8, "vocab_size": 25, "num_pads": 0, "q": 4, "rank_pt": 4, "rank_ft": 8},
  TrainSettings: {
    "steps": 12,
    "batch_size": 6,
    "warmup_steps": 3,
    "final_fraction": 0.1,
    "momentum": 0.5,
    "dampening": 0.5,
    "clip_norm": 0.0,
    "noise_std": 0.0,
    "trained": "matrices",
    "loss_positions": "letters",
    "logit_scale": 2.0,
    "microbatches": 2,
    "eval_steps": (0, 10),
    "eval_size": 8,
  },
}


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


@pytest.mark.parametrize("field", CHANGES[TrainSettings])
def test_every_setting_is_in_the_key(field):
  changed = replaced(FINETUNE.settings, field)
  assert dataclasses.replace(FINETUNE, settings=changed).key != FINETUNE.key


@pytest.mark.parametrize("task", [COMPILED.task, MaxIdentifierTask(q=3)], ids=lambda task: task.name)
def test_every_field_of_a_task_is_in_the_key(task):
  keys = {CompileStage(replaced(task, field), "pt", "literal", 0).key for field in CHANGES[type(task)]}
  keys.add(CompileStage(task, "pt", "literal", 0).key)
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
    ("target", "O_PT"),
    ("target", ""),
    ("c_tr", -0.01),
    ("c_tr", 1.01),
    ("c_tr", float("nan")),
    ("learning_rate", 0.0),
    ("learning_rate", -0.1),
    ("learning_rate", float("nan")),
    ("learning_rate", float("inf")),
    ("seed", -1),
  ],
)
def test_a_train_stage_refuses_in_one_line_that_names_the_field(field, bad):
  with pytest.raises(InputError, match=rf"\A{field}: [^\n]+\Z"):
    dataclasses.replace(FINETUNE, **{field: bad})


def test_a_compile_stage_refuses_another_operand():
  with pytest.raises(InputError, match=r"\Aoperand: [^\n]*pt, ft\Z"):
    dataclasses.replace(COMPILED, operand="random")


@pytest.mark.parametrize("c_tr", [0.0, 1.0])
def test_the_ends_of_the_range_of_c_tr_are_allowed(c_tr):
  assert dataclasses.replace(FINETUNE, c_tr=c_tr).c_tr == c_tr


def test_noise_and_data_depend_on_seed_kind_and_target_and_not_on_what_is_swept():
  stream = FINETUNE.lane.stream
  assert 0 <= stream < 2**32
  swept = {"learning_rate": 1e-3, "c_tr": 0.0, "settings": REFT.settings, "parent": REFT}
  for field, value in swept.items():
    assert dataclasses.replace(FINETUNE, **{field: value}).lane.stream == stream
  others = {"seed": 4, "kind": "reft", "target": "random"}
  streams = {dataclasses.replace(FINETUNE, **{field: value}).lane.stream for field, value in others.items()}
  assert len(streams | {stream}) == 4


def test_streams_of_many_seeds_are_distinct():
  assert len({dataclasses.replace(FINETUNE, seed=seed).lane.stream for seed in range(500)}) == 500


def test_noise_does_not_ask_for_another_program():
  noisy = dataclasses.replace(FINETUNE.settings, noise_std=0.7)
  assert dataclasses.replace(FINETUNE, settings=noisy, target="pt", seed=9, c_tr=1.0).program == FINETUNE.program
  longer = dataclasses.replace(FINETUNE.settings, eval_size=8)
  assert dataclasses.replace(FINETUNE, settings=longer).program != FINETUNE.program
