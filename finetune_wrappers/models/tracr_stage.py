"""A compile stage's work: program, compilation, port, and a check on the task it is for."""

import re
from typing import Any

import jax
import numpy as np

from finetune_wrappers.models import tracr_compile, tracr_port
from finetune_wrappers.models.tracr_model import TracrTransformer
from finetune_wrappers.types import InputError


def build(task: Any, *, operand: str, reading: str, mlp_exactness: int) -> tuple[dict, dict]:
  """Compiles the task's program for one operand.

  Args:
    task: CounterTask or MaxIdentifierTask.
    operand: `pt` or `ft`.
    reading: `literal` or `constant_true`.
    mlp_exactness: 0 chooses it from the length.

  Returns:
    (arrays, facts): `{"params": ...}`, and JSON values from which `restore` makes the module, with the
    symbols of tokens and labels and a name for each residual direction.

  Raises:
    InputError: if the compiled model answers any of 512 strings of the task wrongly.
  """
  if task.name == "counter":
    program = tracr_compile.counter_program({"pt": "a", "ft": "b"}[operand], reading=reading)
  else:
    rank = {"pt": task.rank_pt, "ft": task.rank_ft}[operand]
    program = tracr_compile.max_identifier_program(rank, reading=reading)
  assembled = tracr_compile.compile_program(
    program, vocab=set(task.letters), max_seq_len=task.max_seq_len, mlp_exactness=mlp_exactness or None
  )
  model, params = tracr_port.port(assembled)
  codec = tracr_compile.codec(assembled)
  _check_on_task(task, operand, model, params, codec)
  # Tracr numbers its labels by a global counter; without the numbers the same program has the same labels.
  directions = [re.sub(r"_\d+(?=[:_]|$)", "", label) for label in assembled.residual_labels]
  facts = {
    "model": tracr_port.describe(model),
    "labels": directions,
    "classes": [str(symbol) for symbol in codec.labels],
  }
  return {"params": params}, facts


def restore(facts: dict[str, Any]) -> TracrTransformer:
  """The Flax module of a compile stage."""
  return tracr_port.restore(facts["model"])


def _check_on_task(task, operand: str, model, params, codec: tracr_compile.Codec) -> None:
  if codec.tokens != task.symbols:
    raise InputError("task: its token ids are not those of the compiled program")
  batch = jax.jit(lambda key: task.sample(key, 512, 0.5))(jax.random.key(0))
  expected = np.asarray({"pt": batch.labels_pt, "ft": batch.labels_ft}[operand])
  with jax.default_matmul_precision("highest"):
    logits = jax.jit(lambda p, x: model.apply({"params": p}, x).logits)(params, batch.tokens)
  wrong = int((np.asarray(logits)[:, task.answer_position].argmax(-1) != expected).sum())
  if wrong:
    raise InputError(
      f"mlp_exactness: the compiled program answers {wrong} of 512 strings wrongly; use 0 to choose it"
      f" from the length ({tracr_compile.exactness_for(task.max_seq_len)})"
    )
