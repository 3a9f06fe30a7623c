"""GPT against a transformer written out in NumPy, float64, one head at a time, and against PyTorch where there is one."""

import functools
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune_wrappers.analysis import pruning
from finetune_wrappers.models import gpt
from finetune_wrappers.models.gpt import GPT, GPTConfig
from finetune_wrappers.types import InputError, canonical_json

SMALL = GPTConfig(vocab_size=7, length=10, blocks=2, heads=2, width=8)
LONG = GPTConfig(vocab_size=5, length=150, blocks=2, heads=3, width=6)  # attention in three pieces
SINGLE = GPTConfig(vocab_size=4, length=6, blocks=1, heads=1, width=3)
CASES = [(SMALL, 9, 6), (LONG, 140, 130), (SINGLE, 6, 5)]  # config, length of strings, position of the answer


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
def random_model(config, length, seed=0):
  """(model, params, tokens): weights, biases and scales all random."""
  arrays, facts = gpt.build(config, seed)
  generator = np.random.default_rng(seed + 1)
  tokens = generator.integers(0, config.vocab_size, (3, length))
  params = jax.tree.map(lambda w: np.float32(w.mean() + generator.normal(0, 0.4, w.shape)), arrays["params"])
  return gpt.restore(facts), params, tokens


def apply(model, params, tokens, position, way):
  """What a method of the model gives, or with `slow_` before its name what `__call__` gives in its place."""
  run = functools.partial(model.apply, {"params": params}, tokens)
  if way.startswith("slow_"):
    return {
      "slow_text_logits": lambda output: output.logits,
      "slow_answer_logits": lambda output: output.logits[:, position],
      "slow_answer_residuals": lambda output: jnp.stack(output.residuals)[:, :, position],
    }[way](run())
  if way == "text_logits":
    return run(method=way)
  values = run(position, method=way)
  return values[1:] if way == "answer_residuals" else values  # __call__ gives none before the first block


WAYS = ("text_logits", "answer_logits", "answer_residuals")
run = functools.partial(jax.jit, static_argnums=(0, 3, 4))


def weighted(values):
  """A sum, each value with a factor of its own."""
  return (np.cos(np.arange(values.size)).reshape(values.shape) * values).sum()


@functools.cache
def gradient(config, length, position, way):
  model, params, tokens = random_model(config, length)
  return jax.jit(jax.grad(lambda p: weighted(apply(model, p, tokens, position, way))))(params)


def close(have, want, tolerance=1e-5):
  have, want = np.asarray(have), np.asarray(want)
  return have.shape == want.shape and np.abs(have - want).max() <= tolerance * np.abs(want).max()


@pytest.mark.parametrize(("config", "length", "position"), CASES)
def test_call_is_the_transformer_written_out(config, length, position):
  model, params, tokens = random_model(config, length)
  output = jax.jit(model.apply)({"params": params}, tokens)
  logits, residuals, *lists = written_out(config, params, tokens)
  assert close(output.logits, logits)
  for have, want in zip(output[1:], (residuals[1:], *lists), strict=True):
    assert len(have) == config.blocks and all(map(close, have, want))
  assert {leaf.dtype for leaf in jax.tree.leaves(output)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(("config", "length", "position"), CASES)
def test_the_other_methods_are_the_same_function(config, length, position):
  model, params, tokens = random_model(config, length)
  logits, residuals, *_ = written_out(config, params, tokens)
  assert close(run(apply)(model, params, tokens, position, "text_logits"), logits)
  for at in {position, length - 1, 0}:
    assert close(run(apply)(model, params, tokens, at, "answer_logits"), logits[:, at])
  stream = jax.jit(lambda p: model.apply({"params": p}, tokens, position, method="answer_residuals"))(params)
  assert close(stream, [residual[:, position] for residual in residuals])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("config", "length", "position"), CASES)
def test_gradients_are_those_of_call(config, length, position, way):
  have, want = (gradient(config, length, position, name) for name in (way, f"slow_{way}"))
  largest = max(np.abs(g).max() for g in jax.tree.leaves(want))
  for (path, g), w in zip(jax.tree.leaves_with_path(have), jax.tree.leaves(want), strict=True):
    g, w = np.asarray(g), np.asarray(w)
    assert np.abs(g - w).max() <= 1e-4 * np.abs(w).max() + 1e-6 * largest, path


@pytest.mark.parametrize("way", WAYS[:2])
def test_gradients_are_central_differences_of_what_is_written_out(way):
  config, length, position = CASES[0]
  _, params, tokens = random_model(config, length)
  generator = np.random.default_rng(5)
  grads = gradient(config, length, position, way)
  largest = max(np.abs(g).max() for g in jax.tree.leaves(grads))

  def loss(params):
    logits = written_out(config, params, tokens)[0]
    return weighted(logits[:, position] if way == "answer_logits" else logits)

  leaves, structure = jax.tree.flatten(jax.tree.map(np.float64, params))
  for i, grad in enumerate(jax.tree.leaves(grads)):
    place = tuple(generator.integers(grad.shape))
    ends = []
    for sign in (1, -1):
      moved = [leaf.copy() for leaf in leaves]
      moved[i][place] += sign * 1e-5
      ends.append(loss(structure.unflatten(moved)))
    assert grad[place] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-5 * largest), i


@pytest.mark.parametrize("way", ["slow_text_logits", "text_logits"])
def test_no_logit_depends_on_a_later_token(way):
  config, length = (LONG, 70) if way == "text_logits" else (SMALL, 9)  # 70 is more than one piece
  model, params, tokens = random_model(config, length)

  def by_position(embedding):  # a row of the table enters at its position and nowhere else
    moved = {**params, "pos_embed": {"embedding": embedding}}
    logits = apply(model, moved, tokens[:1], None, way)[0]
    return (logits * jnp.arange(1.0, 1 + config.vocab_size)).sum(-1)

  slopes_TxTxD = np.asarray(jax.jit(jax.jacrev(by_position))(params["pos_embed"]["embedding"]))[:, :length]
  depends = np.abs(slopes_TxTxD).max(-1)
  assert (depends[np.triu_indices(length, 1)] == 0).all()
  assert (depends[np.tril_indices(length)] > 0).all()


def test_the_paper_s_size_has_about_three_million_parameters():
  arrays, facts = gpt.build(GPTConfig(vocab_size=64, length=258), 0)
  d, names = 192, jax.tree.map(np.shape, arrays["params"])
  block = (d * 3 * d + 3 * d) + (d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d) + 4 * d
  assert sum(leaf.size for leaf in jax.tree.leaves(arrays)) == 6 * block + 2 * d + 64 * d + 258 * d + d * 64
  assert names["blocks_5"]["attn"]["qkv"] == {"kernel": (d, 3 * d), "bias": (3 * d,)}
  assert names["head"] == {"kernel": (d, 64)} and names["pos_embed"] == {"embedding": (258, d)}
  assert facts["model"]["blocks"] == facts["model"]["heads"] == 6


@pytest.mark.parametrize("how", ["build", "init"])
def test_weights_start_as_in_mingpt(how):
  config = GPTConfig(vocab_size=64, length=64, blocks=3, heads=2, width=64)
  if how == "build":
    params = gpt.build(config, 3)[0]["params"]
  else:
    params = jax.jit(GPT(config).init)(jax.random.key(0), np.zeros((1, 1), int))["params"]
  for path, leaf in pruning.named_leaves(params):
    leaf = np.asarray(leaf)
    assert leaf.dtype == np.float32
    if path.endswith(("kernel", "embedding")):
      std = 0.02 / (math.sqrt(6) if path.endswith(("attn/linear/kernel", "linear_2/kernel")) else 1)
      assert leaf.std() == pytest.approx(std, rel=0.05), path
      assert abs(leaf.mean()) < 5 * std / math.sqrt(leaf.size), path
      assert np.abs(leaf).max() > 3 * std, path
    else:
      assert (leaf == path.endswith("scale")).all(), path


def test_the_seed_says_all_weights():
  one, same, other = (gpt.build(SMALL, seed)[0]["params"] for seed in (0, 0, 1))
  assert jax.tree.all(jax.tree.map(np.array_equal, one, same))
  assert not np.array_equal(one["head"]["kernel"], other["head"]["kernel"])
  flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(one) if leaf.std()])
  assert len(np.unique(flat)) > 0.99 * len(flat)


def test_facts_are_json_and_the_config_is_a_key():
  facts = gpt.build(LONG, 0)[1]
  restored = gpt.restore(json.loads(canonical_json(facts)))
  assert restored == GPT(LONG) and hash(restored.config) == hash(LONG)


def test_bfloat16_agrees_within_its_precision():
  config = GPTConfig(vocab_size=16, length=24, blocks=3, heads=2, width=32, compute_dtype="bfloat16")
  model, params, tokens = random_model(config, 24)
  params = jax.tree.map(lambda w: w / 2, params)
  exact = written_out(config, params, tokens)
  output = jax.jit(model.apply)({"params": params}, tokens)
  assert {leaf.dtype for leaf in jax.tree.leaves(output)} == {np.dtype(np.float32)}
  error = np.abs(np.asarray(output.logits) - exact[0]).max() / np.abs(exact[0]).max()
  assert 1e-4 < error < 2e-2
  assert np.asarray(output.attention).sum(-1) == pytest.approx(1, abs=1e-5)
  for have, want in zip(output.residuals, exact[1][1:], strict=True):
    assert close(have, want, 2e-2) and not np.array_equal(have, have.astype(jnp.bfloat16))
  answer = run(apply)(model, params, tokens, 20, "answer_logits")
  assert close(answer, exact[0][:, 20], 3e-2) and answer.dtype == np.float32

  def slopes(dtype, way):
    model = GPT(GPTConfig(**{**gpt.build(config, 0)[1]["model"], "compute_dtype": dtype}))
    return jax.jit(jax.grad(lambda p: weighted(apply(model, p, tokens, 20, way))))(params)

  for way in ("text_logits", "answer_logits"):
    have, want = slopes("bfloat16", way), slopes("float32", way)
    assert {leaf.dtype for leaf in jax.tree.leaves(have)} == {np.dtype(np.float32)}
    flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (have, want)]
    assert np.linalg.norm(flat[0] - flat[1]) < 3e-2 * np.linalg.norm(flat[1])


@pytest.mark.parametrize("inner", ["vmap", "map"])
def test_lanes_are_what_each_is_alone(inner):
  config, length, position = CASES[0]
  model = GPT(config)
  lanes = [random_model(config, length, seed)[1:] for seed in range(3)]
  params, tokens = jax.tree.map(lambda *leaves: np.stack(leaves), *lanes)

  def lane(params, tokens):
    ways = [jax.value_and_grad(lambda p, w=w: weighted(apply(model, p, tokens, position, w))) for w in WAYS[:2]]
    return [way(params) for way in ways]

  one = jax.jit(lane)
  together = jax.vmap(lane) if inner == "vmap" else lambda *data: jax.lax.map(lambda args: lane(*args), data)
  have = jax.pmap(together)(*jax.tree.map(lambda x: x[None], (params, tokens)))
  for i, alone in enumerate(lanes):
    for h, w in zip(jax.tree.leaves(have), jax.tree.leaves(one(*alone)), strict=True):
      assert np.abs(h[0, i] - w).max() <= 1e-4 * np.abs(w).max() + 1e-5


def test_every_linear_layer_has_neurons_and_nothing_else():
  params = gpt.build(SINGLE, 0)[0]["params"]
  ones = jax.tree.map(np.ones_like, params)
  scores = pruning.unit_scores(ones, pruning.scope_mask("all", params), "neuron")
  found = {path for path, leaf in pruning.named_leaves(scores) if np.isfinite(leaf).all()}
  layers = ["attn/qkv", "attn/linear", "mlp/linear_1", "mlp/linear_2"]
  names = {f"blocks_0/{layer}/{name}" for layer, name in itertools.product(layers, ("kernel", "bias"))}
  assert found == {*names, "head/kernel"}


@pytest.mark.parametrize(
  ("field", "value", "allowed"),
  [
    ("width", 10, "a multiple of heads (4)"),
    ("vocab_size", 0, "1 or more"),
    ("length", 2.5, "a whole number"),
    ("blocks", -1, "1 or more"),
    ("heads", 0, "1 or more"),
    ("compute_dtype", "float16", "float32, bfloat16"),
  ],
)
def test_a_bad_config_says_what_is_allowed(field, value, allowed):
  with pytest.raises(InputError) as error:
    GPTConfig(**{"vocab_size": 5, "length": 4, "heads": 4, "width": 16, field: value})
  message = str(error.value)
  assert message.startswith(f"{field}: {value!r} ") and allowed in message and "\n" not in message


def test_positions_outside_the_string_and_strings_too_long_are_refused():
  model, params, _ = random_model(SINGLE, 6)
  for position in (6, -1):
    with pytest.raises(InputError, match="^position: .*0 to 5"):
      apply(model, params, np.zeros((1, 6), int), position, "answer_logits")
  with pytest.raises(InputError, match="^tokens: .*6 tokens"):
    apply(model, params, np.zeros((1, 7), int), None, "text_logits")


def test_logits_and_gradients_are_those_of_a_pytorch_mingpt():
  torch = pytest.importorskip("torch")
  config, length, _ = CASES[0]
  model, params, tokens = random_model(config, length)
  leaves = {name: torch.tensor(w, requires_grad=True) for name, w in pruning.named_leaves(params)}

  def layer(name, x):
    if "norm" in name:
      return torch.nn.functional.layer_norm(x, x.shape[-1:], leaves[f"{name}/scale"], leaves[f"{name}/bias"])
    return torch.nn.functional.linear(x, leaves[f"{name}/kernel"].T, leaves.get(f"{name}/bias"))

  def heads(x):
    return x.view(*x.shape[:2], config.heads, -1).transpose(1, 2)

  x = leaves["token_embed/embedding"][torch.tensor(tokens)] + leaves["pos_embed/embedding"][:length]
  for block in [f"blocks_{i}" for i in range(config.blocks)]:
    q, k, v = map(heads, layer(f"{block}/attn/qkv", layer(f"{block}/norm_1", x)).split(config.width, dim=2))
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
    x = x + layer(f"{block}/attn/linear", y)
    units = layer(f"{block}/mlp/linear_1", layer(f"{block}/norm_2", x))
    x = x + layer(f"{block}/mlp/linear_2", torch.nn.functional.gelu(units, approximate="tanh"))
  logits = layer("head", layer("norm", x))
  assert close(run(apply)(model, params, tokens, None, "text_logits"), logits.detach().numpy())
  (logits * torch.tensor(np.cos(np.arange(logits.numel())).reshape(logits.shape))).sum().backward()
  for name, grad in pruning.named_leaves(gradient(config, length, None, "text_logits")):
    assert close(grad, leaves[name].grad.numpy(), 1e-3), name
