"""CPU time of a GPT's training step, beside what one would write first and beside PyTorch where it is installed.

    taskset -c 0 python -m benchmarks.gpt_speed [--sizes=quick,paper] [--paper_batch=16] [--turns=5]

A step is forward, backward and AdamW in float32. `text` trains the next token everywhere, `answer` the last.
"First" is the same GPT with Flax's Dense, whole attention maps and logits everywhere; PyTorch runs minGPT's explicit
attention and `scaled_dot_product_attention`. All start from the same weights on the same strings, and have to find the
same loss. Sides take turns, and what counts is CPU time: on a shared core the clock says little. Pin to one core, so
that all use one thread. The paper's batch is 96; time for each string hardly depends on it. `sampling` draws the
batch with its labels, which a step of training does too.
"""

import importlib
import os
import statistics
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from flax import traverse_util

from configs import fig05_behaviour
from experiments import pcfg
from finetune_wrappers.models import gpt

try:
  torch: Any = importlib.import_module("torch")
except ImportError:
  torch = None

_SIZES = flags.DEFINE_list("sizes", ["quick", "paper"], "Which sizes.")
_PAPER_BATCH = flags.DEFINE_integer("paper_batch", 16, "Strings a step at the paper's size.", lower_bound=1)
_TURNS = flags.DEFINE_integer("turns", 5, "Turns of each side.", lower_bound=1)
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
  flat: Any = traverse_util.flatten_dict(params)
  return traverse_util.unflatten_dict({tuple(n for n in k if n not in ("attn", "mlp")): v for k, v in flat.items()})


class JaxSide:
  """A step under jit, called from Python."""

  def __init__(self, logits_of, params: dict, tokens: np.ndarray, targets: np.ndarray):
    optimizer = optax.adamw(_RATE)

    def loss(params):
      logits = logits_of(params, tokens)
      return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

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

  def __init__(self, config: gpt.GPTConfig, params: dict, tokens: np.ndarray, targets: np.ndarray, own: bool):
    self._config, self._own = config, own
    flat: Any = traverse_util.flatten_dict(first_params(params), sep="/")
    self._params = {
      # PyTorch keeps a linear layer's weight as [outputs, inputs].
      name: torch.tensor(w.T if name.endswith("kernel") else w).contiguous().requires_grad_()
      for name, w in flat.items()
    }
    self._optimizer = torch.optim.AdamW(self._params.values(), _RATE, weight_decay=1e-4, fused=True)
    self._tokens = torch.tensor(tokens).long()
    self._targets = torch.tensor(targets).long()
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
    return layer("head", layer("norm", x[:, -1] if self._targets.ndim == 1 else x))

  def run(self) -> float:
    """One step; the loss before it."""
    loss = torch.nn.functional.cross_entropy(self._logits().flatten(0, -2), self._targets.flatten())
    self._optimizer.zero_grad(set_to_none=True)
    loss.backward()
    self._optimizer.step()
    return loss.item()


def plan_of(size: str) -> Any:
  """The PCFG half at that preset."""
  return pcfg.plans(fig05_behaviour.get_config(size))[0]


class Sampling:
  """Drawing a batch, under jit, called from Python."""

  def __init__(self, size: str, batch: int, loss: str):
    task = plan_of(size).task
    draw = task.sample_pretraining if loss == "text" else task.sample
    share = jnp.array([0.9, 0.1, 0.0]) if loss == "text" else 0.5  # prior, or C_Tr
    self._draw = jax.jit(lambda key: draw(key, batch, share))
    self._key = jax.random.key(0)

  def run(self) -> None:
    jax.block_until_ready(self._draw(self._key))


def sides_of(config: gpt.GPTConfig, batch: int, loss: str) -> dict[str, Any]:
  """By name, what trains the `text` or the `answer`: the next token everywhere, or the last one."""
  arrays, facts = gpt.build(config, 0)
  params, model, first = arrays["params"], gpt.restore(facts), _First(config)
  strings = np.random.default_rng(0).integers(0, config.vocab_size, (batch, config.length))
  tokens, targets = strings[:, :-1], strings[:, 1:] if loss == "text" else strings[:, -1]

  def ours_logits(params, tokens) -> Any:
    if loss == "text":
      return model.apply({"params": params}, tokens, method="text_logits")
    return model.apply({"params": params}, tokens, tokens.shape[1] - 1, method="answer_logits")

  def first_logits(params, tokens) -> Any:
    logits: Any = first.apply({"params": params}, tokens)
    return logits if loss == "text" else logits[:, -1]

  sides: dict[str, Any] = {
    "ours": JaxSide(ours_logits, params, tokens, targets),
    "first": JaxSide(first_logits, first_params(params), tokens, targets),
  }
  if torch is not None:
    sides["torch explicit"] = TorchSide(config, params, tokens, targets, own=False)
    sides["torch SDPA"] = TorchSide(config, params, tokens, targets, own=True)
  return sides


def milliseconds(side, steps: int) -> float:
  """CPU time of a step."""
  begin = time.process_time()
  for _ in range(steps):
    side.run()
  return 1e3 * (time.process_time() - begin) / steps


def measure(size: str, batch: int, loss: str, turns: int) -> list[str]:
  """Lines of the table."""
  sides = sides_of(plan_of(size).init(0).model, batch, loss)
  losses = {name: [side.run() for _ in range(2)] for name, side in sides.items()}
  if any(not np.allclose(values, losses["ours"], rtol=1e-4) for values in losses.values()):
    raise AssertionError(f"the sides do not train the same model: {losses}")
  sides["sampling"] = Sampling(size, batch, loss)
  sides["sampling"].run()
  steps = {name: max(1, int(1e3 * _TURN_SECONDS / milliseconds(side, 1))) for name, side in sides.items()}
  times = {name: [] for name in sides}
  for _ in range(turns):
    for name, side in sides.items():
      times[name].append(milliseconds(side, steps[name]))
  medians = {name: statistics.median(values) for name, values in times.items()}
  return [
    f"| {size}, {loss}, {batch} | {name} | {median:.2f} ({min(times[name]):.2f} to {max(times[name]):.2f}) "
    f"| {median / medians['ours']:.4g} |"
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
    for loss in ("text", "answer"):
      print("\n".join(measure(size, batch, loss, _TURNS.value)), flush=True)


if __name__ == "__main__":
  app.run(main)
