"""What a compile stage does: program, compilation, port, and a check on the task it is for."""

import re
from typing import Any

import jax
import numpy as np

from finetune_wrappers.models import tracr_codec, tracr_compile, tracr_port
from finetune_wrappers.models.tracr_model import TracrTransformer
from finetune_wrappers.rules import one_of
from finetune_wrappers.types import Batch, InputError, Params


def build(task: Any, *, operand: str, reading: str = "literal", mlp_exactness: int = 0) -> tuple[dict, dict]:
  """Compiles the task's program for one operand.

  Args:
    task: a `StringTask`: it gives its program, vocabulary, length and labels.
    operand: `pt` or `ft`.
    reading: of the program, one of the task's own; see `tasks.tracr_tasks`.
    mlp_exactness: 0 takes the task's own, else twice the least that the program needs.

  Returns:
    (arrays, facts): `{"params": ...}`, and JSON values from which `restore` makes the module, with the
    symbols of labels and a name for each residual direction.

  Raises:
    InputError: if the compiled program has other tokens or answers than the task, or answers any of 512 strings of the
      task wrongly; the first 128 of them are also run through Tracr's interpreter.
  """
  one_of("pt", "ft").check("operand", operand)
  program = task.program(operand, reading=reading)
  batch = jax.jit(lambda key: task.sample(key, 512, 0.5 if task.correlated else 0.0))(jax.random.key(0))
  strings = np.asarray(batch.tokens)[:128, 1 : task.num_letters + 1]
  assembled = tracr_compile.compile_program(
    program,
    vocab=set(task.vocab),
    max_seq_len=task.max_seq_len,
    mlp_exactness=mlp_exactness or task.mlp_exactness,
    check_inputs=[[task.symbols[i] for i in string] for string in strings],
    check_positions=np.atleast_1d(task.answer_position).tolist(),
    tolerance=task.tolerance,
  )
  codec = tracr_codec.codec(assembled)
  model, params = tracr_port.port(assembled)
  model, params = tracr_port.aligned(model, params, codec, tokens=task.symbols, labels=task.labels)
  _check_on_task(task, batch, operand, model, params)
  # Tracr numbers its labels by a global counter; without the numbers the same program has the same labels.
  directions = [re.sub(r"_\d+(?=[:_]|$)", "", label) for label in assembled.residual_labels]
  facts = {
    "model": tracr_port.describe(model),
    "labels": directions,
    "classes": [str(label) for label in task.labels],
  }
  return {"params": params}, facts


def compile_task(task: Any, operand: str = "pt", **options: Any) -> tuple[TracrTransformer, Params]:
  """The model of a task's program for one operand, and its parameters; options and errors are those of `build`."""
  arrays, facts = build(task, operand=operand, **options)
  return restore(facts), arrays["params"]


def restore(facts: dict[str, Any]) -> TracrTransformer:
  """The Flax module of a compile stage."""
  return tracr_port.restore(facts["model"])


def _check_on_task(task: Any, batch: Batch, operand: str, model: TracrTransformer, params: Params) -> None:
  expected = np.asarray({"pt": batch.labels_pt, "ft": batch.labels_ft}[operand])
  with model.numerics():
    answer = jax.jit(lambda p, x: task.output.predicted(model.answer(p, x, task.answer_position)))
    wrong_Bx = np.asarray(answer(params, batch.tokens)) != expected
  wrong = int(wrong_Bx.reshape(len(expected), -1).any(axis=1).sum())
  if wrong:
    raise InputError(f"mlp_exactness: the compiled program answers {wrong} of 512 strings wrongly; use 0 to choose it")
