"""RASP programs compiled by the real Tracr, with the ways it can be silently wrong closed.

The only module that imports haiku. Three things go wrong with a bare
`compile_rasp_to_model` (see `third_party/README.md`), and `compile_program` closes each:

* `mlp_exactness` defaults to 100. The MLP that turns a selector width into a count separates 1/n from
  1/(n+1), which lie 1/(n(n+1)) apart; its step is 1/exactness wide and starts half-way between them. So
  the one-hot count is exact from 2n(n+1) upward and *wrong* below n(n+1). It is chosen from the length.
* An exactness that float32 cannot carry, or a head so wide that the softmax leaks, is refused.
* Whatever else goes wrong is caught by running the compiled model beside Tracr's RASP interpreter.
"""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from tracr.compiler import compiling
from tracr.compiler.assemble import AssembledTransformerModel
from tracr.rasp import rasp

from finetune_wrappers.types import InputError

BOS = compiling.COMPILER_BOS
PAD = compiling.COMPILER_PAD

# The step of a discretising MLP is a difference of two activations near `exactness`; float32 keeps 24
# bits, and a step wrong by more than 1/20 moves one-hot counts visibly.
MAX_EXACTNESS = int(0.05 * 2.0**24)
LONGEST = int((MAX_EXACTNESS / 2 + 0.25) ** 0.5 - 0.5)  # the longest input whose counts that is enough for


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
  mlp_exactness: int | None = None,
  causal: bool = False,
  check_inputs: Sequence[Sequence[Any]] | None = None,
) -> AssembledTransformerModel:
  """Compiles a RASP program with Tracr and checks the result against the RASP interpreter.

  Args:
    program: any RASP program that Tracr supports.
    vocab: the tokens of the program's input.
    max_seq_len: the longest input, BOS not counted.
    mlp_exactness: Tracr's large number; None chooses it from the length (`exactness_for`).
    causal: whether attention is masked to the past. The interpreter check is for bidirectional programs
      only, since Tracr's interpreter has no causal mode for every program.
    check_inputs: strings to run through both; by default 64 random ones and, for each token, one that
      repeats it, which reach the extremes of every count.

  Returns:
    The assembled model, on which `tracr_port.port` works.

  Raises:
    InputError: if the length or the exactness cannot be carried, Tracr does not support the program, or the outputs
      differ.
  """
  _check_exactness(mlp_exactness, max_seq_len)
  exactness = exactness_for(max_seq_len) if mlp_exactness is None else mlp_exactness
  tokens: Any = vocab  # Tracr's annotation is narrower than what it takes
  with jax.default_matmul_precision("highest"):
    try:
      assembled = compiling.compile_rasp_to_model(
        program, vocab=tokens, max_seq_len=max_seq_len, causal=causal, mlp_exactness=exactness
      )
    except NotImplementedError as error:
      raise InputError(f"program: Tracr cannot compile it: {error}") from error
  if not causal:
    if check_inputs is None:
      check_inputs = default_check_inputs(vocab, max_seq_len)
    check_against_interpreter(assembled, program, check_inputs)
  return assembled


def _check_exactness(mlp_exactness: int | None, max_seq_len: int) -> None:
  if mlp_exactness is None:
    return
  if not 0 < mlp_exactness <= MAX_EXACTNESS:
    raise InputError(
      f"mlp_exactness: {mlp_exactness} cannot be carried by float32 without errors in the output;"
      f" use {exactness_for(max_seq_len)} (exact for max_seq_len {max_seq_len}) to"
      f" {MAX_EXACTNESS}"
    )


def default_check_inputs(vocab: set[Hashable], max_seq_len: int, *, number: int = 64) -> list[list[Any]]:
  """Random strings, half of them of distinct letters, and for each token its repetitions.

  Few different lengths (1, 2, half, all), because each costs a compilation.
  """
  rng = np.random.default_rng(0)
  letters = sorted(vocab, key=str)
  lengths = sorted({1, min(2, max_seq_len), (max_seq_len + 1) // 2, max_seq_len})
  strings = []
  for i in range(number):
    length = lengths[i % len(lengths)]
    distinct = (i // len(lengths)) % 2 == 0 and length <= len(letters)
    chosen = rng.choice(len(letters), size=length, replace=not distinct)
    strings.append([letters[j] for j in chosen])
  return strings + [[token] * max_seq_len for token in letters]


def check_against_interpreter(
  assembled: AssembledTransformerModel, program: rasp.SOp, inputs: Sequence[Sequence[Any]]
) -> None:
  """Raises InputError where the compiled model and Tracr's RASP interpreter disagree.

  Undefined answers are not compared: None in the interpreter, a program that divides by zero on that
  string, and the mean of several categorical values, which a one-hot output cannot hold.
  """
  numerical = rasp.is_numerical(program)
  labels = set(codec(assembled).labels)
  for string, decoded in zip(inputs, _decode_all(assembled, inputs), strict=True):
    try:
      expected = program(list(string))
    except (ArithmeticError, TypeError, ValueError):
      continue
    for position, (want, have) in enumerate(zip(expected, decoded, strict=True)):
      if want is None or (not numerical and want not in labels):
        continue
      wrong = abs(have - want) > 1e-2 if numerical else have != want
      if wrong:
        raise InputError(
          f"mlp_exactness: the compiled program says {have!r} and the RASP interpreter {want!r} at letter"
          f" {position} of {' '.join(map(str, string))}; raise mlp_exactness, shorten max_seq_len, or avoid what"
          " Tracr cannot compile (a Map of an average, a categorical to numerical Map to negative values)"
        )


def _decode_all(assembled: AssembledTransformerModel, inputs: Sequence[Sequence[Any]]) -> list[list[Any]]:
  """Decoded outputs without BOS, one jitted batch for each length."""
  forward = jax.jit(assembled.forward)
  encoder, decoder = _encoders(assembled)
  decoded: list[list[Any]] = [[] for _ in inputs]
  for length in sorted({len(string) for string in inputs}):
    chosen = [i for i, string in enumerate(inputs) if len(string) == length]
    tokens = np.array([encoder.encode([BOS, *inputs[i]]) for i in chosen])
    with jax.default_matmul_precision("highest"):
      output = np.asarray(forward(assembled.params, tokens).unembedded_output)
    for i, row in zip(chosen, output, strict=True):
      decoded[i] = decoder.decode(row[1:].tolist())
  return decoded


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


@dataclasses.dataclass(frozen=True)
class Codec:
  """Between symbols and ids.

  Attributes:
    tokens: symbol of each token id.
    labels: symbol of each label; empty for a numerical program.
  """

  tokens: tuple
  labels: tuple

  def encode(self, string: Sequence[Any], *, length: int) -> np.ndarray:
    """BOS, the string and pads as int32 [length].

    Raises:
      InputError: for a token outside the vocabulary or a string longer than `length` - 1.
    """
    if len(string) > length - 1:
      raise InputError(f"string: {len(string)} tokens, but the model was compiled for at most {length - 1}")
    ids = {symbol: i for i, symbol in enumerate(self.tokens)}
    for symbol in string:
      if symbol not in ids or symbol in (BOS, PAD):
        allowed = " ".join(str(t) for t in self.tokens if t not in (BOS, PAD))
        raise InputError(f"string: token {symbol!r} is not in the vocabulary ({allowed})")
    padded = [BOS, *string] + [PAD] * (length - 1 - len(string))
    return np.array([ids[symbol] for symbol in padded], np.int32)


def codec(assembled: AssembledTransformerModel) -> Codec:
  """The symbols of an assembled model, read off its encoders."""
  encoder, decoder = _encoders(assembled)
  return Codec(tokens=tuple(encoder.encoding_map), labels=tuple(getattr(decoder, "encoding_map", ())))


def _encoders(assembled: AssembledTransformerModel) -> tuple[Any, Any]:
  """Of the input and the output; Tracr's annotations say that they may be None, its compiler always sets them."""
  return assembled.input_encoder, assembled.output_encoder
