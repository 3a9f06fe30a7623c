"""The port beside the Haiku model that Tracr assembles: residual streams, attention and answers."""

import ast
import dataclasses
import functools
import json
import textwrap

import haiku as hk
import jax
import numpy as np
import pytest
import scipy
from tracr.compiler import compiling, test_cases

from finetune_wrappers.models import tracr_compile, tracr_port
from finetune_wrappers.tasks.tracr_tasks import CounterTask, MaxIdentifierTask, counter_program, max_identifier_program
from finetune_wrappers.types import InputError

TABLE = [(case, False) for case in test_cases.TEST_CASES] + [(case, True) for case in test_cases.CAUSAL_TEST_CASES]
NAMES = [case["testcase_name"] + "-causal" * causal for case, causal in TABLE]
REVERSE, PATTERN_CAUSAL = NAMES.index("reverse_1"), NAMES.index("detect_pattern_abc-causal")
FULL_SIZE = {
  "counter": (CounterTask(), counter_program("a")),
  "max_identifier": (MaxIdentifierTask(), max_identifier_program(5)),
}
TRANSFORM = hk.transform
UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
FORWARDS: dict = {}


@pytest.fixture(scope="module", autouse=True)
def quick_tracr():
  """Tracr draws all weights, compiling an initialiser for each shape, and overwrites them: here they start as ones."""
  transform = hk.transform

  def transform_with_jitted_init(function):
    pure = transform(function)
    return hk.Transformed(jax.jit(pure.init, compiler_options=UNOPTIMISED), pure.apply)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(hk, "transform", transform_with_jitted_init)
    patch.setattr(hk.initializers, "VarianceScaling", lambda _: np.ones)
    yield


@pytest.fixture(autouse=True)
def full_precision():
  with jax.default_matmul_precision("highest"):
    yield


@functools.cache
def compiled(row):
  case, causal = TABLE[row]
  return compiling.compile_rasp_to_model(case["program"], case["vocab"], case["max_seq_len"], causal=causal)


@functools.cache
def compiled_in_full_size(name):
  task, program = FULL_SIZE[name]
  exactness = tracr_compile.exactness_for(task.max_seq_len)
  return compiling.compile_rasp_to_model(program, set(task.letters), task.max_seq_len, mlp_exactness=exactness)


@functools.partial(jax.jit, static_argnums=0, compiler_options=UNOPTIMISED)
def run_port(model, params, tokens):
  return model.apply({"params": params}, tokens)


def run_haiku(assembled, model, tokens):
  """Jitted once for all programs of one architecture: embeddings and weights are arguments."""
  key = (model, is_numerical(assembled))
  forward = FORWARDS.setdefault(key, jax.jit(assembled.forward, compiler_options=UNOPTIMISED))
  return forward(assembled.params, tokens)


def is_numerical(assembled):
  return not hasattr(assembled.output_encoder, "encoding_map")


def with_noise(assembled, seed):
  generator = np.random.default_rng(seed)
  params = jax.tree.map(lambda w: np.float32(np.asarray(w) + generator.normal(0, 1e-3, w.shape)), assembled.params)
  return dataclasses.replace(assembled, params=params)


def relative_difference(have, want):
  have, want = np.asarray(have), np.asarray(want)
  assert have.shape == want.shape
  return np.abs(have - want).max() / np.abs(want).max()


def assert_parity(assembled, tokens):
  """Every block's residual stream and attention, and the answer; returns the answer at every position."""
  model, params = tracr_port.port(assembled)
  output = run_haiku(assembled, model, tokens)
  haiku, ported = output.transformer_output, run_port(model, params, tokens)
  assert len(ported.residuals) == len(ported.attention) == len(haiku.attn_logits) == assembled.model_config.num_layers
  for have, want in zip(ported.residuals, haiku.residuals[1::2], strict=True):
    assert relative_difference(have, want) <= 1e-5
  for have, logits in zip(ported.attention, haiku.attn_logits, strict=True):
    assert relative_difference(have, scipy.special.softmax(np.asarray(logits), axis=-1)) <= 1e-5
  answer, logits = np.asarray(output.unembedded_output), np.asarray(ported.logits)
  if is_numerical(assembled):
    assert relative_difference(logits[..., 0], answer) <= 1e-5
  else:
    assert np.array_equal(logits.argmax(-1), answer)
  return assembled.output_encoder.decode(answer[0].tolist())


@pytest.mark.parametrize("row", range(len(TABLE)), ids=NAMES)
def test_every_program_of_tracrs_table_is_ported_whole(row):
  case, assembled = TABLE[row][0], compiled(row)
  tokens = np.array([assembled.input_encoder.encode(["compiler_bos", *case["test_input"]])])
  for have, want in zip(assert_parity(assembled, tokens)[1:], case["expected_output"], strict=True):
    assert want is None or have == (pytest.approx(want, abs=1e-2) if isinstance(want, float) else want)
  assert_parity(with_noise(assembled, row), tokens)


def test_only_the_programs_that_tracr_refuses_are_left_out_of_the_table():
  assert (len(test_cases.TEST_CASES), len(test_cases.CAUSAL_TEST_CASES), len(TABLE)) == (43, 11, 54)
  assert len(test_cases.UNSUPPORTED_TEST_CASES) == 9
  for case in test_cases.UNSUPPORTED_TEST_CASES:
    with pytest.raises(NotImplementedError):
      compiling.compile_rasp_to_model(case["program"], case["vocab"], case["max_seq_len"])


@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_papers_programs_are_ported_whole_in_full_size(name):
  task, _ = FULL_SIZE[name]
  generator = np.random.default_rng(0)
  letters = [generator.permutation(list(task.letters * 10))[: task.num_letters] for _ in range(4)]
  if name == "max_identifier":
    letters = [generator.permutation(list(task.letters))[: task.num_letters] for _ in range(4)]
  strings = [["compiler_bos", *row, *["compiler_pad"] * task.num_pads] for row in letters]
  assembled = compiled_in_full_size(name)
  tokens = np.array([assembled.input_encoder.encode(string) for string in strings])
  answer = assert_parity(assembled, tokens)[task.answer_position]
  assert answer == (list(letters[0]).count("a") if name == "counter" else sorted(letters[0])[4])
  assert_parity(with_noise(assembled, 0), tokens)


def test_odd_entries_of_haikus_residuals_are_those_after_a_block():
  assembled = compiled(REVERSE)
  tokens = np.array([[0, 1, 2, 3, 1]])
  haiku = assembled.forward(assembled.params, tokens).transformer_output
  stream = haiku.input_embeddings
  for i in range(assembled.model_config.num_layers):
    attention, mlp = haiku.layer_outputs[2 * i : 2 * i + 2]
    stream = stream + attention + mlp
    assert relative_difference(haiku.residuals[1::2][i], stream) <= 1e-6
  assert np.array_equal(haiku.residuals[-1], haiku.output)


def test_no_weight_that_tracr_draws_survives_its_assembly(monkeypatch):
  case, _ = TABLE[REVERSE]
  monkeypatch.setattr(hk.initializers, "VarianceScaling", lambda _: lambda shape, dtype: np.full(shape, 7, dtype))
  again = compiling.compile_rasp_to_model(case["program"], case["vocab"], case["max_seq_len"])
  assert jax.tree.all(jax.tree.map(np.array_equal, compiled(REVERSE).params, again.params))


@pytest.mark.parametrize("change", [{"layer_norm": True}, {"activation_function": jax.nn.gelu}])
def test_other_architectures_are_refused(change):
  assembled = compiled(REVERSE)
  config = dataclasses.replace(assembled.model_config, **change)
  with pytest.raises(InputError, match=r"\Aassembled: [^\n]+\Z"):
    tracr_port.port(dataclasses.replace(assembled, model_config=config))


def test_an_unembedding_that_mixes_directions_is_refused(monkeypatch):
  matrix = tracr_compile.unembedding(compiled(REVERSE))
  for factor, shift in ((2.0, 0.0), (1.0, 0.5)):
    monkeypatch.setattr(tracr_compile, "unembedding", lambda _, f=factor, s=shift: f * matrix + s)
    with pytest.raises(InputError, match=r"\Aassembled: [^\n]+\Z"):
      tracr_port.port(compiled(REVERSE))


@pytest.mark.parametrize("row", [REVERSE, PATTERN_CAUSAL])
def test_a_module_comes_back_from_its_description_in_json(row):
  model, params = tracr_port.port(compiled(row))
  restored = tracr_port.restore(json.loads(json.dumps(tracr_port.describe(model))))
  assert restored == model and hash(restored) == hash(model)
  tokens = np.array([[0, 1, 2, 3]])
  shapes = jax.eval_shape(restored.init, jax.random.key(0), tokens)["params"]
  assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, params)
  assert restored.causal == TABLE[row][1]


def test_the_example_in_the_docstring_gives_what_it_says(monkeypatch):
  monkeypatch.setattr(hk, "transform", TRANSFORM)
  lines = tracr_port.__doc__.split("\n\n", 2)[2]
  *statements, last = ast.parse(textwrap.dedent(lines)).body
  names: dict = {}
  exec(compile(ast.Module(statements, []), "example", "exec"), names)
  assert "0.6 at every letter" in lines and isinstance(last, ast.Expr)
  value = eval(compile(ast.Expression(last.value), "example", "eval"), names)
  assert value == pytest.approx(np.full(5, 0.6), abs=1e-5)
