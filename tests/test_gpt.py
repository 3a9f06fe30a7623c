"""GPT against a transformer written out in NumPy, float64, one head at a time; and in PyTorch, where there is one."""

import dataclasses
import functools
import json
import math
import re

import jax
import numpy as np
import pytest

from finetune_wrappers.analysis import masks
from finetune_wrappers.models import gpt
from finetune_wrappers.models.gpt import GPT, GPTConfig
from finetune_wrappers.types import InputError, canonical_json

TWO = GPTConfig(vocab_size=7, length=72, blocks=2, heads=2, width=8)  # its attention is in two pieces
ONE = GPTConfig(vocab_size=4, length=6, blocks=1, heads=1, width=8)
# Strings are one shorter than the position table. With the position that is read: one within, and the last.
CASES = [(TWO, 66), (ONE, 4)]


@pytest.fixture(autouse=True)
def full_precision():
  with jax.default_matmul_precision("highest"):
    yield


def norm(x, params):
  mean = x.mean(-1, keepdims=True)
  return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5) * params["scale"] + params["bias"]


def affine(x, params):
  return x @ params["kernel"] + params["bias"]


def written_out(config, params, tokens_BxT):
  """(logits, residuals with the one before the first block, attention, hidden) in float64."""
  params = jax.tree.map(np.float64, params)
  length, size = tokens_BxT.shape[1], config.width // config.heads
  x = params["token_embed"]["embedding"][tokens_BxT] + params["pos_embed"]["embedding"][:length]
  future = np.array([[s > t for s in range(length)] for t in range(length)])
  residuals, attention, hidden = [x], [], []
  for block in [params[f"blocks_{i}"] for i in range(config.blocks)]:
    queries, keys, values = np.split(affine(norm(x, block["norm_1"]), block["attn"]["qkv"]), 3, axis=-1)
    maps, mixed = [], []
    for part in [slice(h * size, (h + 1) * size) for h in range(config.heads)]:
      scores = np.einsum("btk,bsk->bts", queries[..., part], keys[..., part]) / math.sqrt(size)
      scores[:, future] = -np.inf
      weights = np.exp(scores - scores.max(-1, keepdims=True))
      maps.append(weights / weights.sum(-1, keepdims=True))
      mixed.append(np.einsum("bts,bsk->btk", maps[-1], values[..., part]))
    x = x + affine(np.concatenate(mixed, axis=-1), block["attn"]["linear"])
    units = affine(norm(x, block["norm_2"]), block["mlp"]["linear_1"])
    units = 0.5 * units * (1 + np.tanh(math.sqrt(2 / math.pi) * (units + 0.044715 * units**3)))
    x = x + affine(units, block["mlp"]["linear_2"])
    residuals.append(x)
    attention.append(np.stack(maps, axis=1))
    hidden.append(units)
  return norm(x, params["norm"]) @ params["head"]["kernel"], residuals, attention, hidden


@functools.cache
def random_model(config, seed=0):
  """(model, params, tokens): weights, biases and scales all random."""
  arrays, facts = gpt.build(config, seed)
  generator = np.random.default_rng(seed + 1)
  tokens = generator.integers(0, config.vocab_size, (3, config.length - 1))
  params = jax.tree.map(lambda w: np.float32(w.mean() + generator.normal(0, 0.4, w.shape)), arrays["params"])
  return gpt.restore(facts), params, tokens


def forward(model, params, tokens, way):
  """`call`, `text`, or a number: both methods that answer at that position."""
  apply = functools.partial(model.apply, {"params": params}, tokens)
  if way == "call":
    return apply()
  if way == "text":
    return apply(method="text_logits")
  return apply(way, method="answer_logits"), apply(way, method="answer_residuals")


@functools.partial(jax.jit, static_argnums=(0, 4))
def pull(model, params, tokens, cotangent, way):
  """(values, gradient of their sum with the cotangent as factors)."""
  values, back = jax.vjp(lambda p: forward(model, p, tokens, way), params)
  return values, back(cotangent)[0]


def cotangents(config, position):
  """For `text` and the two answers, a factor for each value; and the same for what `call` gives in their place."""
  generator, (model, params, tokens) = np.random.default_rng(5), random_model(config)
  output = jax.eval_shape(lambda p: forward(model, p, tokens, "call"), params)
  nothing, of_answer = (jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), output) for _ in range(2))
  text = generator.normal(size=output.logits.shape).astype(np.float32)
  stream = generator.normal(size=(config.blocks + 1, 3, config.width)).astype(np.float32)
  of_answer.logits[:, position] = answer = text[:, position]
  stream[0] = 0  # `call` gives none before the first block
  for i, residual in enumerate(of_answer.residuals):
    residual[:, position] = stream[1 + i]
  return text, (answer, stream), nothing._replace(logits=text), of_answer


@functools.cache
def result(config, position, name):
  """(values, gradient) of `text` or `answer`, or of what `call` gives in their place: `call text`, `call answer`."""
  ways = {"text": "text", "answer": position, "call text": "call", "call answer": "call"}
  return pull(*random_model(config), cotangents(config, position)[[*ways].index(name)], ways[name])


def close(have, want, tolerance=1e-5):
  have, want = np.asarray(have), np.asarray(want)
  return have.shape == want.shape and np.abs(have - want).max() <= tolerance * np.abs(want).max()


def all_close(have, want):
  """Every leaf, but for what is nothing beside the largest."""
  small = 1e-6 * max(np.abs(leaf).max() for leaf in jax.tree.leaves(want))
  pairs = zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True)
  return all(np.abs(h - w).max() <= 1e-4 * np.abs(w).max() + small for h, w in pairs)


@pytest.mark.parametrize(("config", "position"), CASES)
def test_call_is_the_transformer_written_out(config, position):
  output = result(config, position, "call text")[0]
  logits, residuals, *lists = written_out(config, *random_model(config)[1:])
  assert close(output.logits, logits) and close(output.embedded, residuals[0])
  for have, want in zip((output.residuals, output.attention, output.hidden), (residuals[1:], *lists), strict=True):
    assert len(have) == config.blocks and all(map(close, have, want))


@pytest.mark.parametrize(("config", "position"), CASES)
def test_the_other_methods_are_the_same_function(config, position):
  logits, residuals, *_ = written_out(config, *random_model(config)[1:])
  assert close(result(config, position, "text")[0], logits)
  answer, stream = result(config, position, "answer")[0]
  assert close(answer, logits[:, position])
  assert close(stream, [residual[:, position] for residual in residuals])


@pytest.mark.parametrize("way", ["text", "answer"])
@pytest.mark.parametrize(("config", "position"), CASES)
def test_gradients_are_those_of_call(config, position, way):
  assert all_close(result(config, position, way)[1], result(config, position, f"call {way}")[1])


@pytest.mark.parametrize("way", ["text", "answer"])
def test_gradients_are_central_differences_of_what_is_written_out(way):
  config, position = CASES[0]
  _, params, tokens = random_model(config)
  text, (answer, stream), *_ = cotangents(config, position)
  generator, grads = np.random.default_rng(5), result(config, position, way)[1]
  largest = float(max(np.abs(g).max() for g in jax.tree.leaves(grads)))

  def loss(params):
    logits, residuals, *_ = written_out(config, params, tokens)
    if way == "text":
      return (text * logits).sum()
    return (answer * logits[:, position]).sum() + (stream * np.stack(residuals)[:, :, position]).sum()

  leaves, structure = jax.tree.flatten(jax.tree.map(np.float64, params))
  for i, grad in enumerate(jax.tree.leaves(grads)):
    step = np.zeros(grad.shape)
    step[tuple(generator.integers(grad.shape))] = 1e-5
    ends = [loss(structure.unflatten([*leaves[:i], leaves[i] + s, *leaves[i + 1 :]])) for s in (step, -step)]
    slope = (ends[0] - ends[1]) / 2e-5
    assert np.asarray(grad)[step > 0].item() == pytest.approx(slope, rel=1e-3, abs=1e-5 * largest), i


@pytest.mark.parametrize("way", ["call", "text"])
@pytest.mark.parametrize(("config", "position"), CASES)
def test_no_logit_depends_on_a_later_token(config, position, way):
  model, params, tokens = random_model(config)
  text, _, call, _ = cotangents(config, position)
  for t in {0, 1, 3, config.length - 2, *([63, 64, 65] if config is TWO else [])}:
    only = np.zeros_like(text)
    only[:, t] = text[:, t]
    _, grads = pull(model, params, tokens, only if way == "text" else call._replace(logits=only), way)
    # A row of this table enters at its position and nowhere else.
    depends = np.abs(np.asarray(grads["pos_embed"]["embedding"])).max(-1)
    assert (depends[: t + 1] > 0).all() and (depends[t + 1 :] == 0).all()


def test_the_paper_s_size_has_about_three_million_parameters():
  params = gpt.build(GPTConfig(vocab_size=64, length=258), 0)[0]["params"]
  d, norms = 192, {"scale": (192,), "bias": (192,)}
  layers = {  # dicts with a kernel are what `pruning` takes for neurons
    "attn": {"qkv": {"kernel": (d, 3 * d), "bias": (3 * d,)}, "linear": {"kernel": (d, d), "bias": (d,)}},
    "mlp": {"linear_1": {"kernel": (d, 4 * d), "bias": (4 * d,)}, "linear_2": {"kernel": (4 * d, d), "bias": (d,)}},
  }
  blocks = {f"blocks_{i}": {**layers, "norm_1": norms, "norm_2": norms} for i in range(6)}
  ends = {"token_embed": {"embedding": (64, d)}, "pos_embed": {"embedding": (258, d)}, "head": {"kernel": (d, 64)}}
  assert jax.tree.map(np.shape, params) == {**blocks, **ends, "norm": norms}
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 2_743_680


@pytest.mark.parametrize("how", ["build", "init"])
def test_weights_start_as_in_mingpt(how):
  config = GPTConfig(vocab_size=64, length=64, blocks=2, heads=2, width=64)
  init = functools.partial(jax.jit(GPT(config).init), jax.random.key(0), np.zeros((1, 1), int))
  params = (gpt.build(config, 3)[0] if how == "build" else init())["params"]
  for path, leaf in masks.named_leaves(jax.device_get(params)):
    if path.endswith(("kernel", "embedding")):
      std = 0.02 / (math.sqrt(4) if path.endswith(("attn/linear/kernel", "linear_2/kernel")) else 1)
      assert leaf.std() == pytest.approx(std, rel=0.05), path
      assert abs(leaf.mean()) < 5 * std / math.sqrt(leaf.size) and np.abs(leaf).max() > 3 * std, path
    else:
      assert (leaf == path.endswith("scale")).all(), path


def test_the_seed_says_all_weights_and_facts_are_json():
  arrays = [gpt.build(ONE, seed)[0] for seed in (0, 0, 1)]
  drawn = [np.concatenate([w.ravel() for w in jax.tree.leaves(tree) if w.std()]) for tree in arrays]
  assert np.array_equal(drawn[0], drawn[1]) and not np.isin(drawn[0], drawn[2]).any()
  assert len(np.unique(drawn[0])) == drawn[0].size
  restored = gpt.restore(json.loads(canonical_json(gpt.build(ONE, 0)[1])))
  assert restored == GPT(ONE) and hash(restored.config) == hash(ONE)


def test_bfloat16_agrees_within_its_precision():
  config, position = CASES[1]
  configs = config, dataclasses.replace(config, compute_dtype="bfloat16")
  exact, rough = ({name: result(c, position, name) for name in ("answer", "call text")} for c in configs)
  assert {leaf.dtype for leaf in jax.tree.leaves((exact, rough))} == {np.dtype(np.float32)}
  for way, bounds in {"answer": (1e-2, 3e-2), "call text": (1e-2, 6e-2)}.items():
    for bound, *trees in zip(bounds, rough[way], exact[way], strict=True):
      for have, want in zip(*map(jax.tree.leaves, trees), strict=True):
        assert np.linalg.norm(have - want) <= bound * np.linalg.norm(want) + 1e-6
  assert np.asarray(rough["call text"][0].attention).sum(-1) == pytest.approx(1, abs=1e-6)
  # Where only biases reach the stream, nothing of it, of layer norms and of the head may show bfloat16; units have to.
  model, params, tokens = random_model(configs[1])
  params = jax.tree.map(np.copy, params)
  params["blocks_0"]["attn"]["linear"]["kernel"][:] = params["blocks_0"]["mlp"]["linear_2"]["kernel"][:] = 0
  output = pull(model, params, tokens, cotangents(config, position)[2], "call")[0]
  logits, residuals, _, hidden = written_out(config, params, tokens)
  assert close(output.logits, logits) and close(output.residuals[0], residuals[1])
  assert not close(output.hidden[0], hidden[0], 5e-4)


@pytest.mark.parametrize("way", ["text", "answer"])
def test_lanes_are_what_each_is_alone(way):
  config, position = CASES[1]
  text, answer, *_ = cotangents(config, position)
  lanes = [random_model(config, seed)[1:] for seed in range(4)]

  def one(params, tokens):
    return pull(GPT(config), params, tokens, *((text, "text") if way == "text" else (answer, position)))

  together = jax.pmap(lambda *data: jax.lax.map(lambda pair: jax.vmap(one)(*pair), data))
  have = together(*jax.tree.map(lambda *leaves: np.stack(leaves).reshape(1, 2, 2, *leaves[0].shape), *lanes))
  for i, lane in enumerate(lanes):
    assert all_close(jax.tree.map(lambda leaf, at=(0, i // 2, i % 2): leaf[at], have), one(*lane))


@pytest.mark.parametrize(
  ("field", "value", "allowed"),
  [
    ("width", 10, "a multiple of heads (4)"),
    ("length", 2.5, "a whole number from 1 to"),
    ("compute_dtype", "float16", "one of float32, bfloat16"),
    *[(field, 0, "a whole number from 1 to") for field in ("vocab_size", "length", "blocks", "heads", "width")],
  ],
)
def test_a_bad_config_says_what_is_allowed(field, value, allowed):
  with pytest.raises(InputError) as error:
    GPTConfig(**{"vocab_size": 5, "length": 4, "heads": 4, "width": 16, field: value})
  assert re.fullmatch(f"{field}: {value!r} is not (allowed; use )?{re.escape(allowed)}.*", str(error.value))


def test_positions_outside_the_string_and_strings_too_long_are_refused():
  model, params, tokens = random_model(ONE)
  for position in (5, -1):
    with pytest.raises(InputError, match="^position: .*0 to 4"):
      forward(model, params, tokens, position)
  for way in ("call", "text", 6):
    with pytest.raises(InputError, match="^tokens: .*6 tokens"):
      forward(model, params, np.zeros((1, 7), int), way)


def test_logits_and_gradients_are_those_of_a_pytorch_mingpt():
  torch = pytest.importorskip("torch")
  functional, (config, position) = torch.nn.functional, CASES[0]
  _, params, tokens = random_model(config)
  leaves = {name: torch.tensor(w, requires_grad=True) for name, w in masks.named_leaves(params)}

  def layer(name, x):
    if "norm" in name:
      return functional.layer_norm(x, x.shape[-1:], leaves[f"{name}/scale"], leaves[f"{name}/bias"])
    return functional.linear(x, leaves[f"{name}/kernel"].T, leaves.get(f"{name}/bias"))

  x = leaves["token_embed/embedding"][torch.tensor(tokens)] + leaves["pos_embed/embedding"][: tokens.shape[1]]
  for block in [f"blocks_{i}" for i in range(config.blocks)]:
    qkv = layer(f"{block}/attn/qkv", layer(f"{block}/norm_1", x)).split(config.width, dim=2)
    q, k, v = (part.unflatten(2, (config.heads, -1)).transpose(1, 2) for part in qkv)
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    x = x + layer(f"{block}/attn/linear", mixed)
    units = layer(f"{block}/mlp/linear_1", layer(f"{block}/norm_2", x))
    x = x + layer(f"{block}/mlp/linear_2", functional.gelu(units, approximate="tanh"))
  logits = layer("head", layer("norm", x))
  (logits * torch.tensor(cotangents(config, position)[0])).sum().backward()
  values, grads = result(config, position, "text")
  assert close(values, logits.detach().numpy())
  assert all_close(jax.tree.leaves(grads), [leaves[name].grad.numpy() for name, _ in masks.named_leaves(params)])
