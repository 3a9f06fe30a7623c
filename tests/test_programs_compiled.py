"""Tasks of RASP programs, compiled: answers, alignment with the task, and what is refused. Tasks are test_programs'."""

import json
import types

import numpy as np
import pytest
from test_programs import COUNTS, EQ, MIXED, ROTATED, SHARES, count, drawn, share, task_of
from tracr.rasp import rasp

from finetune_wrappers.models import tracr_compile, tracr_port, tracr_stage
from finetune_wrappers.tasks.programs import ProgramTask
from finetune_wrappers.types import InputError


@pytest.mark.parametrize("task", [SHARES, ROTATED, MIXED], ids=["shares", "rotated", "mixed"])
def test_the_compiled_program_answers_the_test_set(task):
  arrays, facts = tracr_stage.build(task, operand="ft")
  model = tracr_stage.restore(json.loads(json.dumps(facts)))
  batch = drawn(task, c=0, test=True, size=64)
  answer = model.answer(arrays["params"], batch.tokens, task.answer_position)
  assert np.array_equal(task.output.predicted(answer), batch.labels_ft)
  assert not np.array_equal(task.output.predicted(answer), batch.labels_pt)
  assert facts["classes"] == [str(label) for label in task.labels]


def test_a_program_without_the_other_operands_answers_is_refused():
  fields = {"name": "own", "vocab": ("x", "y"), "num_letters": 3}
  task = ProgramTask(lambda: count("x"), lambda: rasp.Map(lambda token: token, rasp.tokens), **fields)
  with pytest.raises(InputError, match=r"\Alabels: the compiled program has no answer 'x'; it has 0 1 2 3\Z"):
    tracr_stage.build(task, operand="pt")


def test_what_cannot_be_compiled_is_refused_in_one_line():
  full = rasp.Aggregate(rasp.Select(rasp.tokens, rasp.Full("x"), EQ), rasp.tokens)
  with pytest.raises(InputError, match=r"\Aprogram: [^\n]+\Z"):
    tracr_compile.compile_program(full, vocab={"x", "y"}, max_seq_len=3)
  with pytest.raises(InputError, match=r"\Aoperand: [^\n]+pt, ft\Z"):
    tracr_stage.build(COUNTS, operand="random")


def test_programs_that_tracr_compiles_wrongly_are_refused():
  def mostly(token):
    return rasp.Map(lambda found: found > 0.6, share(token))  # Tracr takes 2/3 for 1/2

  def sign(token):
    return rasp.numerical(rasp.Map(lambda found: 1 if found == token else -1, rasp.tokens))  # and -1 for 0

  for program, cause in ((mostly, "takes for 0.5"), (sign, "a negative number as 0")):
    task = task_of(program, "xy", num_letters=3)
    with pytest.raises(InputError, match=rf"\Aprogram: [^\n]*{cause}[^\n]*\Z"):
      tracr_stage.build(task, operand="pt")


def test_a_program_is_made_afresh_each_time():
  first, second = COUNTS.program("pt"), COUNTS.program("pt")
  assert first is not second and first.label != second.label


def test_alignment_reorders_token_ids_and_labels():
  model = types.SimpleNamespace(answer_channels=(7, 8, 9))
  model.clone = lambda **changed: types.SimpleNamespace(**{**vars(model), **changed})
  params = {"token_embed": {"embedding": np.arange(3)[:, None]}, "rest": 1}
  codec = types.SimpleNamespace(tokens=("b", 1, "a"), labels=(2, "n", 3))
  found, moved_params = tracr_port.aligned(model, params, codec, tokens=(1, "a", "b"), labels=(3, 2))
  assert found.answer_channels == (9, 7)
  assert moved_params["token_embed"]["embedding"][:, 0].tolist() == [1, 2, 0] and moved_params["rest"] == 1
  with pytest.raises(InputError, match=r"\Avocab: [^\n]+'c'[^\n]+\Z"):
    tracr_port.aligned(model, params, codec, tokens=(1, "c"), labels=())
