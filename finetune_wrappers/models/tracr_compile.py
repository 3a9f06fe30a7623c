"""RASP programs compiled by the real Tracr, with the ways it can be silently wrong closed.

The only module that imports haiku. A bare `compile_rasp_to_model` (see `third_party/README.md`) returns wrong models
without a word; `compile_program` returns models that were run beside Tracr's RASP interpreter, or says which step of
the program Tracr cannot do:

* `mlp_exactness` defaults to 100. An MLP that reads a number tells two neighbouring values apart by a step that is
  1/exactness wide and starts half-way between them; a count n is read from 1/(n+1). So the one-hot count is exact from
  2n(n+1) upward and *wrong* below n(n+1). It is chosen from the values that the program's steps can have.
* What Tracr cannot do (`tracr_check` names the step) is found by the interpreter, on all strings if they are few.
* Steps that were looked at or compiled before are compiled from fresh copies (`tracr_program.fresh`).
"""

import dataclasses
import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from tracr.compiler import basis_inference, compiling, expr_to_craft_graph, nodes, rasp_to_graph, validating
from tracr.compiler.assemble import AssembledTransformerModel
from tracr.rasp import rasp

from finetune_wrappers.models import tracr_check, tracr_program
from finetune_wrappers.rules import NOT_NEGATIVE, Many, Rule, whole
from finetune_wrappers.types import InputError

# The step of a discretising MLP is a difference of two activations near `exactness`; float32 keeps 24
# bits, and a step wrong by more than 1/20 moves one-hot counts visibly.
MAX_EXACTNESS = int(0.05 * 2.0**24)
LONGEST = int((MAX_EXACTNESS / 2 + 0.25) ** 0.5 - 0.5)  # the longest input whose counts that is enough for
_TRACRS_OWN = 100  # for programs in which nothing is read as a number
_LARGEST = float(np.finfo(np.float32).max)
_KINDS = (
  rasp.TokensType, rasp.IndicesType, rasp.Map, rasp.SequenceMap, rasp.LinearSequenceMap, rasp.Select,
  rasp.SelectorWidth, rasp.Aggregate,
)  # fmt: skip
_BATCH = 1024
_DRAWN = hk.initializers.VarianceScaling


@dataclasses.dataclass
class CompiledProgram(AssembledTransformerModel):
  """Tracr's assembled model, and how it was checked.

  Attributes:
    mlp_exactness: that it was compiled with.
    num_checked: strings on which it was run beside the interpreter.
    everything: whether these were all strings up to the longest length.
    error: the largest difference to the interpreter on them, of a numerical program; 0 for a categorical one.
  """

  mlp_exactness: float = _TRACRS_OWN
  num_checked: int = 0
  everything: bool = False
  error: float = 0.0


def exactness_for(max_seq_len: int) -> int:
  """Smallest `mlp_exactness` at which counts up to `max_seq_len` are exact: 2n(n+1).

  Raises:
    InputError: if the length is below 1 or needs more than float32 can carry.
  """
  if max_seq_len < 1:
    raise InputError(f"max_seq_len: {max_seq_len} is not allowed; use 1 or more")
  exactness = 2 * max_seq_len * (max_seq_len + 1)
  if exactness > MAX_EXACTNESS:
    raise InputError(
      f"max_seq_len: counts up to {max_seq_len} need an mlp_exactness of {exactness}, more than float32"
      f" carries ({MAX_EXACTNESS}); use {LONGEST} or less"
    )
  return exactness


def compile_program(
  program: rasp.SOp,
  *,
  vocab: set[Hashable],
  max_seq_len: int,
  mlp_exactness: float | None = None,
  causal: bool = False,
  check_inputs: Sequence[Sequence[Any]] | None = None,
  check_positions: Sequence[int] | None = None,
  tolerance: float = 1e-4,
) -> CompiledProgram:
  """Compiles a RASP program with Tracr and checks the result against the RASP interpreter.

  Args:
    program: any RASP program that Tracr supports.
    vocab: the tokens of the program's input.
    max_seq_len: the longest input, BOS not counted.
    mlp_exactness: Tracr's large number; None chooses twice the least that the values of the program's steps need.
    causal: whether attention is masked to the past; the interpreter's selectors then are as well.
    check_inputs: strings to run through both. None tries all strings if these are at most some 10^5, else many that
      reach as many values of every step as they can. Give those that occur if the program is not made for others.
    check_positions: letters, from 1, at which the answers are compared; None is all of them.
    tolerance: by how much a numerical answer may differ from the interpreter's, or from 1 on by which share of it.

  Returns:
    The assembled model, on which `tracr_port.port` works.

  Raises:
    InputError: if the length or the exactness cannot be carried, Tracr cannot compile a step of the program, or the
      answers differ; which step is to blame is said. Where the interpreter's answer is undefined nothing is compared.
  """
  vocab = set(vocab)
  _check_arguments(program, vocab, max_seq_len, check_inputs, check_positions, tolerance)
  if mlp_exactness is not None:
    _check_exactness(mlp_exactness, max_seq_len)
  program = tracr_program.fresh(program)
  sops = [step for step in tracr_program.steps(program) if isinstance(step, rasp.SOp)]
  if any(isinstance(sop, rasp.SelectorWidth) for sop in sops):
    exactness_for(max_seq_len)
  value_sets = _value_sets(program, sops, vocab, max_seq_len)
  everything = check_inputs is None and tracr_program.all_strings_fit(num_tokens=len(vocab), max_seq_len=max_seq_len)
  exactness = mlp_exactness or _least_exactness(sops, value_sets, max_seq_len, capped=everything)
  tried = tracr_program.tried(program, vocab, max_seq_len, causal=causal, strings=check_inputs)
  if not (everything or check_inputs is not None):
    tracr_check.refuse_unknown_values(sops, value_sets, tried)
  assembled = _assembled(program, vocab, max_seq_len, causal, exactness)
  checked = CompiledProgram(**vars(assembled), mlp_exactness=exactness, everything=everything)
  if tried.strings:
    _check(checked, sops, value_sets, tried, check_positions, tolerance)
  return checked


def _check(checked: CompiledProgram, sops, value_sets, tried, positions, tolerance) -> None:
  """Runs the model on the strings, notes how it did, and raises InputError where it is wrong."""
  compared = 0
  for start, residual in _residuals(checked, tried.strings):
    readings = tracr_check.Readings(checked.residual_labels, value_sets, start, residual)
    number, error = tracr_check.compare(sops, tried, readings, positions, tolerance)
    compared += number
    checked.error = max(checked.error, error)
  checked.num_checked = len(tried.strings)
  if not compared:
    raise InputError("program: its answer is undefined on every string that was tried; give others as check_inputs")


def _check_arguments(program, vocab, max_seq_len, check_inputs, check_positions, tolerance) -> None:
  if not isinstance(program, rasp.SOp):
    raise InputError(f"program: {type(program).__name__} is not allowed; use a step that has values (rasp.SOp)")
  exactness_for(min(max_seq_len, 1))  # refuses lengths below 1
  if not vocab:
    raise InputError("vocab: empty; give one token or more")
  token, letter = Rule("a token of vocab", lambda symbol: symbol in vocab), whole(1, max_seq_len)
  for string in check_inputs or ():
    Many(token, once=False).check("check_inputs", tuple(string))
    letter.check("check_inputs: the length of a string", len(string))
  for position in check_positions or ():
    letter.check("check_positions", position)
  NOT_NEGATIVE.check("tolerance", tolerance)


def _check_exactness(mlp_exactness: float, max_seq_len: int) -> None:
  if not 0 < mlp_exactness <= MAX_EXACTNESS:
    raise InputError(
      f"mlp_exactness: {mlp_exactness} cannot be carried by float32 without errors in the output;"
      f" use {exactness_for(max_seq_len)} (exact for max_seq_len {max_seq_len}) to"
      f" {MAX_EXACTNESS}"
    )


def _value_sets(program: rasp.SOp, sops: list[rasp.SOp], vocab: set, max_seq_len: int) -> dict[str, set]:
  """The values that Tracr thinks each step can have, by its `label`.

  Raises:
    InputError: for a step that Tracr cannot compile, or that can be what its numbers or its names of directions cannot
      tell.
  """
  for step in tracr_program.steps(program):
    if type(step) not in _KINDS:
      known = ", ".join(kind.__name__ for kind in _KINDS[2:])
      raise InputError(f"program: Tracr cannot compile {tracr_program.said(step)}; use {known}, tokens and indices")
  try:
    graph = _graph(program, vocab, max_seq_len)
  except Exception as error:
    for sop in sops:
      try:
        _graph(sop, vocab, max_seq_len)
      except Exception as own:
        raise InputError(f"program: Tracr cannot compile {tracr_program.said(sop)}: {_one_line(own)}") from error
    raise InputError(f"program: Tracr cannot compile it: {_one_line(error)}") from error
  found = {sop.label: graph.nodes[sop.label][nodes.VALUE_SET] for sop in sops}
  for sop in sops:
    values = sorted(found[sop.label], key=str)
    for value, following in itertools.zip_longest(values, values[1:]):
      number = isinstance(value, int | float | np.number)
      if value is None or (number and not abs(value) <= _LARGEST):
        raise InputError(f"program: {tracr_program.said(sop)} can be {value}, which float32 does not hold")
      if rasp.is_numerical(sop) and not number:
        raise InputError(f"program: {tracr_program.said(sop)} is numerical and can be {value!r}, which is no number")
      if rasp.is_categorical(sop) and following is not None and str(value) == str(following):
        raise InputError(f"program: {tracr_program.said(sop)} can be {value!r} and {following!r}; use one of them")
  return found


def _graph(program: rasp.SOp, vocab: set, max_seq_len: int) -> Any:
  """Tracr's graph of the program with everything but the weights."""
  unsupported = validating.static_validate(program)
  if unsupported:
    raise NotImplementedError(unsupported[0].reason)
  extracted = rasp_to_graph.extract_rasp_graph(program)
  basis_inference.infer_bases(extracted.graph, extracted.sink, vocab, max_seq_len)
  for node in extracted.graph.nodes.values():
    if nodes.VALUE_SET in node and not node[nodes.VALUE_SET]:
      raise ValueError("its function has no value for any that it may be given")
  expr_to_craft_graph.add_craft_components_to_rasp_graph(extracted.graph, mlp_exactness=_TRACRS_OWN)
  return extracted.graph


def _one_line(error: Exception) -> str:
  if isinstance(error, TypeError) and "unhashable" in str(error):
    return "its function must return numbers, words or truth values"
  return " ".join(str(error).split()) or type(error).__name__


def _least_exactness(sops: list[rasp.SOp], value_sets: dict[str, set], max_seq_len: int, *, capped: bool) -> float:
  """Twice what tells all neighbouring values apart on which a step that reads a number differs."""
  least = 0.0
  for sop in sops:
    if isinstance(sop, rasp.SelectorWidth):
      least = max(least, exactness_for(max_seq_len))
    elif isinstance(sop, rasp.Map) and rasp.is_numerical(sop.inner):
      known = tracr_check.known_values(sop, value_sets)
      for (low, answer), (high, other) in itertools.pairwise(known):
        if answer != other:
          least = max(least, 2 / (high - low))
          if least > MAX_EXACTNESS and not capped:
            raise InputError(
              f"program: {tracr_program.said(sop)} tells {low} from {high}, nearer than float32 can tell in an MLP"
            )
  return min(2 * least, MAX_EXACTNESS) or _TRACRS_OWN


def _assembled(
  program: rasp.SOp, vocab: Any, max_seq_len: int, causal: bool, exactness: float
) -> AssembledTransformerModel:
  found = []

  def run():
    with hk.custom_creator(_undrawn), jax.default_matmul_precision("highest"):
      found.append(
        compiling.compile_rasp_to_model(
          program, vocab=vocab, max_seq_len=max_seq_len, causal=causal, mlp_exactness=exactness
        )
      )

  try:
    hk.transform(run).init(None)
  except Exception as error:
    raise InputError(f"program: Tracr cannot compile it: {_one_line(error)}") from error
  return found[0]


def _undrawn(make, shape, dtype, init, context) -> Any:
  """Zeros for weights that Haiku would draw: Tracr overwrites every one, and drawing takes most of its time."""
  del context
  return np.zeros(shape, dtype) if isinstance(init, _DRAWN) else make(shape, dtype, init)


def _residuals(assembled: AssembledTransformerModel, strings: list[list]) -> Iterator[tuple[int, np.ndarray]]:
  """Number of the first string and last residual [N, L, D] at the letters, for up to 1024 strings at a time.

  Shorter strings are padded behind a mask, so that one compilation does for all lengths.
  """
  encoder: Any = assembled.input_encoder

  def run(tokens):
    model = assembled.get_compiled_model()
    model.pad_token = encoder.pad_encoding
    return model(tokens, use_dropout=False).transformer_output.output[:, 1:]

  forward = jax.jit(hk.without_apply_rng(hk.transform(run)).apply)
  longest = max(map(len, strings))
  for start in range(0, len(strings), _BATCH):
    tokens = np.full((min(_BATCH, len(strings)), longest + 1), encoder.pad_encoding)
    for row, string in zip(tokens, strings[start : start + _BATCH], strict=False):
      row[: len(string) + 1] = encoder.encode([encoder.bos_token, *string])
    with jax.default_matmul_precision("highest"):
      yield start, np.asarray(forward(assembled.params, tokens))[: len(strings) - start]


def unembedding(assembled: AssembledTransformerModel) -> np.ndarray:
  """The matrix that Tracr keeps in a closure, outside the parameters.

  Returns:
    float32 [D, V], columns of the identity: which residual direction each label is read from.
  """
  width = len(assembled.residual_labels)

  def read(x):
    return assembled.get_compiled_model().unembed(x, use_unembed_argmax=False)

  out = hk.without_apply_rng(hk.transform(read)).apply({}, jnp.eye(width))
  return np.asarray(out, np.float32).reshape(width, -1)
