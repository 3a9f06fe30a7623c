"""Llama against one written out in NumPy: float64, a head at a time, rotations as complex numbers."""

import dataclasses
import functools
import json
import math
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from finetune_wrappers.analysis import masks
from finetune_wrappers.models import llama, llama_layers
from finetune_wrappers.models.llama import Llama
from finetune_wrappers.models.llama_layers import LlamaConfig
from finetune_wrappers.types import InputError, canonical_json

# Grouped heads, an untied head, attention in two pieces; and shared by none, tied.
TWO = LlamaConfig(
  vocab_size=7,
  length=72,
  blocks=2,
  heads=4,
  kv_heads=2,
  width=16,
  hidden=10,
  rope_theta=50.0,
  norm_eps=1e-2,
  tied=False,
)
ONE = LlamaConfig(vocab_size=5, length=6, blocks=1, heads=2, kv_heads=2, width=12, hidden=7)
MQA = dataclasses.replace(ONE, kv_heads=1, blocks=2)
CASES = [(TWO, 66), (ONE, 4), (MQA, 3)]


@pytest.fixture(autouse=True)
def full_precision():
  with jax.default_matmul_precision("highest"):
    yield


def written_out(config, params, tokens_BxT):
  """(logits, residuals with the one before the first block, attention, hidden) in float64."""
  params = jax.tree.map(np.float64, params)
  length, size = tokens_BxT.shape[1], config.width // config.heads

  def norm(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_eps) * scale

  def turned(x):
    for t in range(length):
      for j in range(size // 2):
        z = (x[:, t, j] + 1j * x[:, t, j + size // 2]) * np.exp(1j * t * config.rope_theta ** (-2 * j / size))
        x[:, t, j], x[:, t, j + size // 2] = z.real, z.imag
    return x

  x = params["token_embed"]["embedding"][tokens_BxT]
  residuals, attention, hidden = [x], [], []
  for block in [params[f"blocks_{i}"] for i in range(config.blocks)]:
    own, normed = block["attn"], norm(x, block["norm_1"]["scale"])
    maps, mixed = [], []
    for h in range(config.heads):
      g = h // (config.heads // config.kv_heads)
      part, shared = slice(h * size, (h + 1) * size), slice(g * size, (g + 1) * size)
      queries, keys = (turned(normed @ own[name]["kernel"][:, at]) for name, at in (("query", part), ("key", shared)))
      weights = np.zeros((len(x), length, length))
      for t in range(length):
        scores = np.exp(np.einsum("bk,bsk->bs", queries[:, t], keys[:, : t + 1]) / math.sqrt(size))
        weights[:, t, : t + 1] = scores / scores.sum(-1, keepdims=True)
      maps.append(weights)
      mixed.append(weights @ (normed @ own["value"]["kernel"][:, shared]))
    x = x + np.concatenate(mixed, axis=-1) @ own["linear"]["kernel"]
    normed, mlp = norm(x, block["norm_2"]["scale"]), block["mlp"]
    gate = normed @ mlp["gate"]["kernel"]
    units = gate / (1 + np.exp(-gate)) * (normed @ mlp["up"]["kernel"])
    x = x + units @ mlp["down"]["kernel"]
    residuals.append(x)
    attention.append(np.stack(maps, axis=1))
    hidden.append(units)
  head = params["token_embed"]["embedding"].T if config.tied else params["head"]["kernel"]
  return norm(x, params["norm"]["scale"]) @ head, residuals, attention, hidden


@functools.cache
def random_model(config, seed=0):
  """(model, params, tokens): weights and scales all random."""
  arrays, facts = llama.build(config, seed)
  generator = np.random.default_rng(seed + 1)
  tokens = generator.integers(0, config.vocab_size, (2, config.length - 1))
  params = jax.tree.map(lambda w: np.float32(w.mean() + generator.normal(0, 0.4, w.shape)), arrays["params"])
  return llama.restore(facts), params, tokens


@functools.cache
def reference(config):
  return written_out(config, *random_model(config)[1:])


def close(have, want, tolerance=2e-5):
  have, want = np.asarray(have), np.asarray(want)
  return have.shape == want.shape and np.abs(have - want).max() <= tolerance * np.abs(want).max()


@pytest.mark.parametrize(("config", "position"), CASES)
def test_call_is_the_llama_written_out(config, position):
  model, params, tokens = random_model(config)
  output = jax.jit(model.forward)(params, tokens)
  logits, residuals, *lists = reference(config)
  assert close(output.logits, logits) and close(output.embedded, residuals[0])
  for have, want in zip((output.residuals, output.attention, output.hidden), (residuals[1:], *lists), strict=True):
    assert len(have) == config.blocks and all(map(close, have, want))


@pytest.mark.parametrize(("config", "position"), CASES)
def test_the_other_methods_are_the_same_function(config, position):
  model, params, tokens = random_model(config)
  logits, residuals, *_ = reference(config)
  assert close(jax.jit(model.text)(params, tokens), logits)
  answer, stream_of = (jax.jit(method, static_argnums=2) for method in (model.answer, model.stream))
  for at in (position, 0):
    assert close(answer(params, tokens, at), logits[:, at])
    stream = stream_of(params, tokens, at)
    assert [*stream] == [*range(config.blocks + 1)]
    assert all(close(stream[i], residual[:, at]) for i, residual in enumerate(residuals))
  several = (0, position)
  assert close(answer(params, tokens, several), logits[:, several])
  assert close(stream_of(params, tokens, several)[1], residuals[1][:, several])


def read(logits, stream, way, position):
  """What a way gives, in a row: all logits, or at one position those and the stream."""
  if way == "text":
    return logits.ravel()
  return np.concatenate([x[:, position].ravel() for x in (logits, *stream)])


@pytest.mark.parametrize("way", ["text", "answer"])
@pytest.mark.parametrize(("config", "position"), CASES)
def test_gradients_are_central_differences_of_what_is_written_out(config, position, way):
  model, params, tokens = random_model(config)
  generator = np.random.default_rng(5)
  factors = generator.normal(size=read(*reference(config)[:2], way, position).size)

  def loss(params):
    if way == "text":
      return (factors * model.text(params, tokens).ravel()).sum()
    parts = model.answer(params, tokens, position), *model.stream(params, tokens, position).values()
    return (factors * jnp.concatenate([x.ravel() for x in parts])).sum()

  grads = jax.jit(jax.grad(loss))(params)
  largest = float(max(np.abs(g).max() for g in jax.tree.leaves(grads)))
  leaves, structure = jax.tree.flatten(jax.tree.map(np.float64, params))
  for i, grad in enumerate(jax.tree.leaves(grads)):
    step, ends = np.zeros(grad.shape), []
    step[tuple(generator.integers(grad.shape))] = 1e-5
    for s in (step, -step):
      changed = structure.unflatten([*leaves[:i], leaves[i] + s, *leaves[i + 1 :]])
      ends.append(factors @ read(*written_out(config, changed, tokens)[:2], way, position))
    slope = (ends[0] - ends[1]) / 2e-5
    assert np.asarray(grad)[step > 0].item() == pytest.approx(slope, rel=1e-3, abs=1e-5 * largest), i


@pytest.mark.parametrize("way", ["call", "text"])
def test_no_logit_depends_on_a_later_token(way):
  # One string over a table with a row for each position: where something enters, there is a gradient.
  wide = dataclasses.replace(TWO, vocab_size=71)
  model, params, _ = random_model(wide)
  tokens = np.arange(71)[None]

  @jax.jit
  def gradient(t):
    def logit(params):
      found = model.text(params, tokens) if way == "text" else model.forward(params, tokens).logits
      return found[0, t].sum()

    return jax.grad(logit)(params)["token_embed"]["embedding"]

  for t in (0, 1, 3, 63, 64, 65, 70):
    depends = np.abs(np.asarray(gradient(t))).max(-1)
    assert (depends[: t + 1] > 0).all() and (depends[t + 1 :] == 0).all()


def test_the_paper_s_size_has_about_91_million_parameters():
  config = LlamaConfig(vocab_size=8192, length=1024, blocks=12, heads=12, kv_heads=12, width=768, hidden=2048)
  shapes = jax.eval_shape(Llama(config).init, jax.random.key(0), jnp.zeros((1, 1), int))["params"]
  d, f, scale = 768, 2048, {"scale": (768,)}
  layers = {
    "attn": {name: {"kernel": (d, d)} for name in ("query", "key", "value", "linear")},
    "mlp": {"gate": {"kernel": (d, f)}, "up": {"kernel": (d, f)}, "down": {"kernel": (f, d)}},
  }
  blocks = {f"blocks_{i}": {**layers, "norm_1": scale, "norm_2": scale} for i in range(12)}
  assert jax.tree.map(np.shape, shapes) == {**blocks, "token_embed": {"embedding": (8192, d)}, "norm": scale}
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 91_245_312
  few = llama.build(TWO, 0)[0]["params"]
  assert few["head"]["kernel"].shape == (16, 7) and few["blocks_0"]["attn"]["key"]["kernel"].shape == (16, 8)


@pytest.mark.parametrize("how", ["build", "init"])
def test_weights_start_small_and_smaller_where_they_add_to_the_stream(how):
  config = dataclasses.replace(TWO, vocab_size=64, width=64, hidden=96)
  init = functools.partial(jax.jit(Llama(config).init), jax.random.key(0), np.zeros((1, 1), int))
  params = (llama.build(config, 3)[0] if how == "build" else init())["params"]
  for path, leaf in masks.named_leaves(jax.device_get(params)):
    if path.endswith(("kernel", "embedding")):
      std = 0.02 / (math.sqrt(4) if path.endswith(("attn/linear/kernel", "down/kernel")) else 1)
      assert leaf.std() == pytest.approx(std, rel=0.05), path
      assert abs(leaf.mean()) < 5 * std / math.sqrt(leaf.size) and np.abs(leaf).max() > 3 * std, path
    else:
      assert (leaf == 1).all(), path


def test_the_seed_says_all_weights_and_facts_are_json():
  drawn = [llama.build(ONE, seed)[0]["params"]["token_embed"]["embedding"] for seed in (0, 0, 1)]
  assert np.array_equal(drawn[0], drawn[1]) and not np.isin(drawn[0], drawn[2]).any()
  restored = llama.restore(json.loads(canonical_json(llama.build(TWO, 0)[1])))
  assert restored == Llama(TWO) and hash(restored.config) == hash(TWO)


def test_bfloat16_agrees_within_its_precision_and_keeps_logits_and_stream_float32():
  model, params, tokens = random_model(TWO)
  rough = Llama(dataclasses.replace(TWO, compute_dtype="bfloat16"))
  output, text = jax.jit(lambda p: (rough.forward(p, tokens), rough.text(p, tokens)))(params)
  assert {leaf.dtype for leaf in jax.tree.leaves(output)} == {np.dtype(np.float32)}
  logits, residuals, *_ = reference(TWO)
  answer = jax.jit(rough.answer, static_argnums=2)(params, tokens, 66)
  for have, want in ((output.logits, logits), (text, logits), (answer, logits[:, 66])):
    assert 1e-3 < np.linalg.norm(have - want) / np.linalg.norm(want) < 0.1
  assert np.linalg.norm(answer - output.logits[:, 66]) < 0.05 * np.linalg.norm(answer)
  assert close(output.embedded, residuals[0]) and not close(output.residuals[0], residuals[1], 5e-4)
  assert np.asarray(output.attention).sum(-1) == pytest.approx(1, abs=1e-6)
  # Where nothing is added to the stream, nothing of it, of the last norm and of the head may show bfloat16.
  params = jax.tree.map(np.copy, params)
  for i in range(2):
    params[f"blocks_{i}"]["attn"]["linear"]["kernel"][:] = params[f"blocks_{i}"]["mlp"]["down"]["kernel"][:] = 0
  assert close(rough.text(params, tokens), written_out(TWO, params, tokens)[0])


def test_a_norm_is_rounded_once_after_its_scale():
  generator = np.random.default_rng(0)
  x, scale = (np.float32(generator.normal(size=shape)) for shape in ((200, 64), (64,)))
  exact = llama_layers.Norm(1e-5).apply({"params": {"scale": scale}}, x)
  same = llama_layers.Kernel(64, 64, "bfloat16").apply({"params": {"kernel": np.eye(64, dtype=np.float32)}}, exact)
  root = np.sqrt((np.float64(x) ** 2).mean(-1, keepdims=True) + 1e-5)
  low = ml_dtypes.bfloat16
  once = (x / root * scale).astype(low)
  twice = (x / root).astype(low) * scale.astype(low)  # as Hugging Face's does
  assert (np.asarray(same) == once.astype(np.float32)).mean() > 0.999
  assert (np.asarray(same) == twice.astype(np.float32)).mean() < 0.9


@pytest.mark.parametrize(
  ("field", "value", "allowed"),
  [
    ("width", 12, "a multiple of 2 heads (8)"),
    ("kv_heads", 3, "a divisor of heads (4)"),
    ("length", 2.5, "a whole number from 1 to"),
    ("tied", 1, "True or False"),
    ("rope_theta", 0, "a number above 0"),
    ("norm_eps", -1e-5, "a number above 0"),
    ("compute_dtype", "float16", "one of float32, bfloat16"),
    *[(field, 0, "a whole number from 1 to") for field in ("vocab_size", "blocks", "heads", "kv_heads", "hidden")],
  ],
)
def test_a_bad_config_says_what_is_allowed(field, value, allowed):
  with pytest.raises(InputError) as error:
    dataclasses.replace(TWO, **{field: value})
  assert re.fullmatch(f"{field}: {value!r} is not (allowed; use )?{re.escape(allowed)}.*", str(error.value))


def test_positions_outside_the_string_and_strings_too_long_are_refused():
  model, params, tokens = random_model(ONE)
  for position in (5, -1):
    with pytest.raises(InputError, match="^position: .*0 to 4"):
      model.answer(params, tokens, position)
  for call in (model.forward, model.text, lambda p, t: model.stream(p, t, 6)):
    with pytest.raises(InputError, match="^tokens: .*6 tokens"):
      call(params, np.zeros((1, 7), int))
