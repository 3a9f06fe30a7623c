"""CPU time of a GPT's training step, beside what one would write first and beside PyTorch where it is installed.

    taskset -c 0 python -m benchmarks.gpt_speed [--sizes=quick,paper] [--paper_batch=16] [--turns=5]

A step is forward, backward and AdamW in float32. `text` trains the next token everywhere, `answer` one position.
"First" is the same GPT with Flax's Dense, whole attention maps and logits everywhere; PyTorch runs minGPT's explicit
attention and `scaled_dot_product_attention`. All start from the same weights on the same strings, and have to find the
same loss. Sides take turns, and what counts is CPU time: on a shared core the clock says little. Pin to one core, so
that all use one thread. The paper's batch is 96; time for each string hardly depends on it.
"""

import os
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from flax import traverse_util

from finetune_wrappers.models import gpt

try:
  import torch
except ImportError:
  torch = None

_SIZES = flags.DEFINE_list("sizes", ["quick", "paper"], "Which sizes.")
_PAPER_BATCH = flags.DEFINE_integer("paper_batch", 16, "Strings a step at the paper's size.", lower_bound=1)
_TURNS = flags.DEFINE_integer("turns", 5, "Turns of each side.", lower_bound=1)
_CONFIGS = {
  "quick": gpt.GPTConfig(vocab_size=40, length=31, blocks=2, heads=4, width=64),
  "paper": gpt.GPTConfig(vocab_size=64, length=258),
}
_QUICK_BATCH = 64
_RATE = 1e-3
_TURN_SECONDS = 0.5  # or one step, if that is longer


class _FirstBlock(nn.Module):
  config: gpt.GPTConfig

  @nn.compact
  def __call__(self, x):
    width, heads = self.config.width, self.config.heads
    qkv = nn.Dense(3 * width, name="qkv")(nn.LayerNorm(1e-5, name="norm_1")(x))
    q, k, v = (part.reshape(*part.shape[:2], heads, -1) for part in jnp.split(qkv, 3, axis=-1))
    scores = jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(width // heads)
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    weights = nn.softmax(jnp.where(seen, scores, -jnp.inf))
    x = x + nn.Dense(width, name="linear")(jnp.einsum("bhts,bshk->bthk", weights, v).reshape(x.shape))
    hidden = nn.gelu(nn.Dense(4 * width, name="linear_1")(nn.LayerNorm(1e-5, name="norm_2")(x)))
    return x + nn.Dense(width, name="linear_2")(hidden)


class _First(nn.Module):
  config: gpt.GPTConfig

  @nn.compact
  def __call__(self, tokens):
    config = self.config
    x = nn.Embed(config.vocab_size, config.width, name="token_embed")(tokens)
    x = x + nn.Embed(config.length, config.width, name="pos_embed")(jnp.arange(tokens.shape[1]))
    for i in range(config.blocks):
      x = _FirstBlock(config, name=f"blocks_{i}")(x)
    return nn.Dense(config.vocab_size, use_bias=False, name="head")(nn.LayerNorm(1e-5, name="norm")(x))


def first_params(params: dict) -> dict:
  """Ours, with a block's layers side by side."""
  flat = traverse_util.flatten_dict(params)
  return traverse_util.unflatten_dict({tuple(n for n in k if n not in ("attn", "mlp")): v for k, v in flat.items()})


class JaxSide:
  """A step under jit, called from Python."""

  def __init__(self, logits_of, params: dict, tokens: np.ndarray, position: int | None):
    optimizer = optax.adamw(_RATE)

    def loss(params):
      logits = logits_of(params, tokens)
      return optax.softmax_cross_entropy_with_integer_labels(logits, _targets(tokens, position)).mean()

    def step(params, state):
      value, grads = jax.value_and_grad(loss)(params)
      updates, state = optimizer.update(grads, state, params)
      return optax.apply_updates(params, updates), state, value

    self._params = jax.tree.map(jnp.array, params)
    self._state = optimizer.init(self._params)
    self._step = jax.jit(step, donate_argnums=(0, 1))

  def run(self) -> float:
    """One step; the loss before it."""
    self._params, self._state, value = self._step(self._params, self._state)
    return float(jax.block_until_ready((self._params, value))[1])


class TorchSide:
  """minGPT in PyTorch, with explicit attention or its own."""

  def __init__(self, config: gpt.GPTConfig, params: dict, tokens: np.ndarray, position: int | None, own: bool):
    self._config, self._position, self._own = config, position, own
    flat = traverse_util.flatten_dict(first_params(params), sep="/")
    self._params = {
      # PyTorch keeps a linear layer's weight as [outputs, inputs].
      name: torch.tensor(w.T if name.endswith("kernel") else w).contiguous().requires_grad_()
      for name, w in flat.items()
    }
    self._optimizer = torch.optim.AdamW(self._params.values(), _RATE, weight_decay=1e-4, fused=True)
    self._tokens = torch.tensor(tokens).long()
    self._targets = torch.tensor(np.asarray(_targets(tokens, position))).long().flatten()
    self._future = torch.ones(tokens.shape[1], tokens.shape[1]).triu(1).bool()

  def _layer(self, name, x):
    kind = "scale" if "norm" in name else "kernel"
    weight, bias = self._params[f"{name}/{kind}"], self._params.get(f"{name}/bias")
    if kind == "scale":
      return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias)
    return torch.nn.functional.linear(x, weight, bias)

  def _attend(self, q, k, v):
    if self._own:
      return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(self._future, float("-inf"))
    return scores.softmax(-1) @ v

  def _logits(self):
    config, layer = self._config, self._layer
    x = self._params["token_embed/embedding"][self._tokens]
    x = x + self._params["pos_embed/embedding"][: x.shape[1]]
    for block in (f"blocks_{i}" for i in range(config.blocks)):
      qkv = layer(f"{block}/qkv", layer(f"{block}/norm_1", x)).split(config.width, dim=2)
      q, k, v = (part.unflatten(2, (config.heads, -1)).transpose(1, 2) for part in qkv)
      x = x + layer(f"{block}/linear", self._attend(q, k, v).transpose(1, 2).flatten(2))
      hidden = torch.nn.functional.gelu(layer(f"{block}/linear_1", layer(f"{block}/norm_2", x)), approximate="tanh")
      x = x + layer(f"{block}/linear_2", hidden)
    x = x[:, :-1] if self._position is None else x[:, self._position]
    return layer("head", layer("norm", x)).flatten(0, -2)

  def run(self) -> float:
    """One step; the loss before it."""
    loss = torch.nn.functional.cross_entropy(self._logits(), self._targets)
    self._optimizer.zero_grad(set_to_none=True)
    loss.backward()
    self._optimizer.step()
    return loss.item()


def _targets(tokens, position: int | None):
  """The next tokens, or the one after a position."""
  return tokens[:, 1:] if position is None else tokens[:, position + 1]


def sides_of(config: gpt.GPTConfig, batch: int, position: int | None) -> dict:
  """By name, what trains the text (no position) or the answer."""
  arrays, facts = gpt.build(config, 0)
  params, model, first = arrays["params"], gpt.restore(facts), _First(config)
  tokens = np.random.default_rng(0).integers(0, config.vocab_size, (batch, config.length))
  cut = slice(None, -1) if position is None else position
  ours = {"method": "text_logits"} if position is None else {"position": position, "method": "answer_logits"}

  def ours_logits(params, tokens):
    logits = model.apply({"params": params}, tokens, **ours)
    return logits[:, :-1] if position is None else logits

  def first_logits(params, tokens):
    return first.apply({"params": params}, tokens)[:, cut]

  sides = {
    "ours": JaxSide(ours_logits, params, tokens, position),
    "first": JaxSide(first_logits, first_params(params), tokens, position),
  }
  if torch is not None:
    sides["torch explicit"] = TorchSide(config, params, tokens, position, own=False)
    sides["torch SDPA"] = TorchSide(config, params, tokens, position, own=True)
  return sides


def milliseconds(side, steps: int) -> float:
  """CPU time of a step."""
  begin = time.process_time()
  for _ in range(steps):
    side.run()
  return 1e3 * (time.process_time() - begin) / steps


def measure(size: str, batch: int, position: int | None, turns: int) -> list[str]:
  """Lines of the table."""
  sides = sides_of(_CONFIGS[size], batch, position)
  losses = {name: [side.run() for _ in range(2)] for name, side in sides.items()}
  if any(not np.allclose(values, losses["ours"], rtol=1e-4) for values in losses.values()):
    raise AssertionError(f"the sides do not train the same model: {losses}")
  steps = {name: max(1, int(1e3 * _TURN_SECONDS / milliseconds(side, 1))) for name, side in sides.items()}
  times = {name: [] for name in sides}
  for _ in range(turns):
    for name, side in sides.items():
      times[name].append(milliseconds(side, steps[name]))
  medians = {name: statistics.median(values) for name, values in times.items()}
  loss = "text" if position is None else "answer"
  return [
    f"| {size}, {loss}, {batch} | {name} | {median:.1f} ({min(times[name]):.1f} to {max(times[name]):.1f}) "
    f"| {median / medians['ours']:.2f} |"
    for name, median in medians.items()
  ]


def main(_) -> None:
  threads = len(os.sched_getaffinity(0))
  versions = f"jax {jax.__version__}, {jax.local_devices()[0].device_kind}"
  if torch is not None:
    torch.set_num_threads(threads)
    versions += f", torch {torch.__version__}"
  print(f"{versions}, {threads} core{'s' * (threads > 1)}; float32, AdamW")
  print("| size, loss, batch | side | CPU time of a step, ms | times ours |")
  print("|---|---|---|---|")
  for size in _SIZES.value:
    batch = _PAPER_BATCH.value if size == "paper" else _QUICK_BATCH
    for position in (None, _CONFIGS[size].length - 2):
      print("\n".join(measure(size, batch, position, _TURNS.value)), flush=True)


if __name__ == "__main__":
  app.run(main)
