"""TracrTransformer against a transformer written out in NumPy, float64, one head at a time."""

import functools
import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune_wrappers.models import tracr_codec, tracr_compile, tracr_port
from finetune_wrappers.models.tracr_model import TracrTransformer
from finetune_wrappers.tasks.tracr_tasks import CounterTask, counter_program

SHAPES = [  # heads, layers, causal, answer position
  (2, 2, False, 6),
  (3, 1, True, 4),
  (2, 4, True, 2),
]
UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.fixture(autouse=True)
def full_precision():
  with jax.default_matmul_precision("highest"):
    yield


def written_out(model, params, tokens_BxT):
  """(logits, residuals, attention, hidden) in float64."""
  params = jax.tree.map(np.float64, params)
  length, size = tokens_BxT.shape[1], model.key_size
  x = params["token_embed"]["embedding"][tokens_BxT] + params["pos_embed"]["embedding"][:length]
  allowed = np.array([[s <= t or not model.causal for s in range(length)] for t in range(length)])
  residuals, attention, hidden = [], [], []
  for layer in range(model.num_layers):
    attn, mlp = params[f"blocks_{layer}"]["attn"], params[f"blocks_{layer}"]["mlp"]
    heads, out = [], attn["linear"]["bias"]
    for h in range(model.num_heads):
      part = slice(h * size, (h + 1) * size)
      q, k, v = (x @ attn[n]["kernel"][:, part] + attn[n]["bias"][part] for n in ("query", "key", "value"))
      scores = np.where(allowed, q @ k.transpose(0, 2, 1) / size**0.5, -np.inf)
      weights = np.exp(scores - scores.max(-1, keepdims=True))
      heads.append(weights / weights.sum(-1, keepdims=True))
      out = out + heads[-1] @ v @ attn["linear"]["kernel"][part]
    x = x + out
    hidden.append(np.maximum(x @ mlp["linear_1"]["kernel"] + mlp["linear_1"]["bias"], 0))
    x = x + hidden[-1] @ mlp["linear_2"]["kernel"] + mlp["linear_2"]["bias"]
    residuals.append(x)
    attention.append(np.stack(heads, axis=1))
  return x[..., list(model.answer_channels)], residuals, attention, hidden


@functools.cache
def random_model(heads, layers, causal):
  """Weights and biases all random; strings one shorter than the position table."""
  model = TracrTransformer(
    vocab_size=5,
    max_positions=8,
    width=9,
    num_layers=layers,
    num_heads=heads,
    key_size=4,
    mlp_hidden_size=6,
    answer_channels=(7, 0, 3),
    causal=causal,
  )
  generator = np.random.default_rng(heads + 10 * layers)
  tokens = generator.integers(0, 5, (6, 7))
  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
  return model, jax.tree.map(lambda w: generator.normal(0, 0.3, w.shape).astype(np.float32), shapes), tokens


@functools.cache
def compiled_counter(task, noise):
  """Tracr's Counter with noise on every weight, and strings."""
  program = counter_program("a")
  exactness = tracr_compile.exactness_for(task.max_seq_len)
  with pytest.MonkeyPatch.context() as patch:  # what Tracr draws, it overwrites
    patch.setattr(hk.initializers, "VarianceScaling", lambda _: np.zeros)
    assembled = tracr_compile.compile_program(
      program, vocab=set(task.letters), max_seq_len=task.max_seq_len, mlp_exactness=exactness, check_inputs=[]
    )
  model, params = tracr_port.port(assembled)
  generator = np.random.default_rng(1)
  codec = tracr_codec.codec(assembled)
  strings = generator.choice(list(task.letters), (16, task.num_letters))
  tokens = np.stack([codec.encode(list(string), length=task.length) for string in strings])
  return model, jax.tree.map(lambda w: np.float32(w + generator.normal(0, noise, w.shape)), params), tokens


quick_jit = functools.partial(jax.jit, static_argnums=(0, 3), compiler_options=UNOPTIMISED)


def answer_logits(model, params, tokens, position):
  return model.apply({"params": params}, tokens, position, method="answer_logits")


def every_logits(model, params, tokens, position):
  return model.apply({"params": params}, tokens).logits[:, position]


def gradient(function, model, params, tokens, position):
  """Of a sum of logits, each with a factor of its own."""

  def loss(params):
    logits = function(model, params, tokens, position)
    return (jnp.cos(jnp.arange(logits.size)).reshape(logits.shape) * logits).sum()

  return jax.jit(jax.grad(loss), compiler_options=UNOPTIMISED)(params)


def close(have, want, tolerance=1e-5):
  have, want = np.asarray(have), np.asarray(want)
  return have.shape == want.shape and np.abs(have - want).max() <= tolerance * np.abs(want).max()


@pytest.mark.parametrize("shape", SHAPES)
def test_call_is_the_transformer_written_out(shape):
  model, params, tokens = random_model(*shape[:3])
  output = jax.jit(model.apply, compiler_options=UNOPTIMISED)({"params": params}, tokens)
  logits, *lists = written_out(model, params, tokens)
  assert close(output.logits, logits)
  for have, want in zip((output.residuals, output.attention, output.hidden), lists, strict=True):
    assert len(have) == model.num_layers and all(map(close, have, want))


@pytest.mark.parametrize("shape", SHAPES)
def test_answer_logits_are_the_transformers_at_one_position(shape):
  model, params, tokens = random_model(*shape[:3])
  for position in {0, shape[3]}:
    logits = quick_jit(answer_logits)(model, params, tokens, position)
    assert close(logits, written_out(model, params, tokens)[0][:, position])


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_the_same_by_both_ways_and_by_finite_differences(shape):
  model, params, tokens = random_model(*shape[:3])
  for part, gradients in itertools.product(params, gradients_by_both_ways(model, params, tokens, shape[3], 1e-4)):
    assert relative_slope(model, params, tokens, shape[3], part, gradients) == pytest.approx(1, abs=1e-3), part


def test_gradients_of_a_compiled_model_with_noise_are_the_same_by_both_ways():
  model, params, tokens = compiled_counter(CounterTask(num_letters=5, vocab_size=4, num_pads=1), noise=1e-2)
  tokens = far_from_kinks(model, params, tokens)
  assert len(tokens) >= 8
  logits = written_out(model, params, tokens)[0][:, 2]
  for function in (answer_logits, every_logits):
    assert close(quick_jit(function)(model, params, tokens, 2), logits, 1e-4)
  gradients_by_both_ways(model, params, tokens, 2, tolerance=1e-3)


def far_from_kinks(model, params, tokens):
  """The strings whose units stay on or off if weights move by 1e-5 of themselves, which is more than float32 rounds.

  At a unit that is about 0 the gradient of either side is right, and which it is differs between processors.
  """
  generator = np.random.default_rng(2)

  def active(params):
    return np.concatenate([units > 0 for units in written_out(model, params, tokens)[3]], axis=-1)

  still = np.ones(len(tokens), bool)
  for _ in range(4):
    moved = jax.tree.map(lambda w: w * (1 + 1e-5 * generator.choice((-1, 1), w.shape)), params)
    still &= (active(moved) == active(params)).all(axis=(1, 2))
  return tokens[still]


def gradients_by_both_ways(model, params, tokens, position, tolerance):
  ways = [gradient(function, model, params, tokens, position) for function in (answer_logits, every_logits)]
  largest = max(np.abs(g).max() for g in jax.tree.leaves(ways[1]))
  for have, (path, want) in zip(jax.tree.leaves(ways[0]), jax.tree.leaves_with_path(ways[1]), strict=True):
    have, want = np.asarray(have), np.asarray(want)
    assert np.abs(have - want).max() <= tolerance * np.abs(want).max() + 1e-6 * largest, path
  return ways


def relative_slope(model, params, tokens, position, part, gradients):
  """Of the loss along the gradient of one part of the parameters, over that gradient's squared norm."""

  def loss(step):
    moved = jax.tree.map(lambda w, g: np.float64(w) + step * np.float64(g), params[part], gradients[part])
    logits = written_out(model, {**params, part: moved}, tokens)[0][:, position]
    return (np.cos(np.arange(logits.size)).reshape(logits.shape) * logits).sum()

  squared = sum(np.square(np.float64(g)).sum() for g in jax.tree.leaves(gradients[part]))
  step = 1e-7 / squared**0.5
  return (loss(step) - loss(-step)) / (2 * step) / squared


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_answer_logits_of_the_full_counter_are_as_exact_as_those_of_call(noise):
  model, params, tokens = compiled_counter(CounterTask(), noise)
  truth = written_out(model, params, tokens)[0][:, 2]
  run = functools.partial(jax.jit, static_argnums=(0, 3))
  errors = [np.abs(run(f)(model, params, tokens, 2) - truth).max() for f in (answer_logits, every_logits)]
  assert errors[0] <= 3 * errors[1] + 1e-6
  assert errors[1] <= 0.05 * np.abs(truth).max()
