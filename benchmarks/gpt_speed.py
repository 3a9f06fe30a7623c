"""CPU time of a GPT's training step, beside what one would write first and beside PyTorch where it is installed.

    python -m benchmarks.gpt_speed [--sizes=quick,paper] [--paper_batch=16] [--turns=3]

A step is forward, backward and AdamW in float32. `text` trains the next token everywhere, `answer` the last.
"First" is the same GPT with Flax's Dense, whole attention maps and logits everywhere; PyTorch runs minGPT's explicit
attention, `scaled_dot_product_attention`, and the latter under `torch.compile` where a C++ compiler lets it (compiling
is not counted). All start from the same weights on the same strings, and have to find the same loss. Sides take turns
on one core, and what counts is CPU time: on a shared core the clock says little. The paper's batch is 96; time for
each string hardly depends on it. `sampling` draws the batch with its labels, which a step of training does too.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from benchmarks.gpts import RATE, First, TorchSide, first_params, plan_of
from benchmarks.turns import TURNS, in_turns, rows, setting, torch, use_cores
from finetune_wrappers.models import gpt

_SIZES = flags.DEFINE_list("sizes", ["quick", "paper"], "Which sizes.")
_PAPER_BATCH = flags.DEFINE_integer("paper_batch", 16, "Strings a step at the paper's size.", lower_bound=1)
_QUICK_BATCH = 64
_TURN_SECONDS = 0.5  # or one call, if that is longer
_STEPS_A_CALL = 10
_LOOPED = f"first, {_STEPS_A_CALL} steps a call"
_COMPILED = "torch.compile, SDPA"


class JaxSide:
  """Steps in a loop under jit, `steps` of them a call from Python.

  A call has a cost of its own, about that of a step at `quick`. The Trainer's calls take seconds, so ours is timed with
  several steps in a call; who calls a jitted step from Python pays every time.
  """

  def __init__(self, logits_of, params: dict, tokens: np.ndarray, targets: np.ndarray, steps: int):
    optimizer = optax.adamw(RATE)

    def loss(params, tokens, targets):
      logits = logits_of(params, tokens)
      return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    def step(i, carried, batch):
      params, state, _ = carried
      own = [jnp.roll(x, i, axis=0) for x in batch]  # another order each time: nothing of it is a constant of the loop
      value, grads = jax.value_and_grad(loss)(params, *own)
      updates, state = optimizer.update(grads, state, params)
      return optax.apply_updates(params, updates), state, value

    def loop(params, state, batch, steps):
      return jax.lax.fori_loop(0, steps, lambda i, carried: step(i, carried, batch), (params, state, jnp.zeros(())))

    self._params = jax.tree.map(jnp.array, params)
    self._state = optimizer.init(self._params)
    self._batch = jnp.array(tokens), jnp.array(targets)
    self.steps = steps
    self._loop = jax.jit(loop, donate_argnums=(0, 1))

  def run(self, steps: int = 1) -> float:
    """The loss before the last of these steps."""
    self._params, self._state, value = self._loop(self._params, self._state, self._batch, steps)
    return float(jax.block_until_ready((self._params, value))[1])


class Sampling:
  """Drawing a batch, under jit, called from Python."""

  steps = 1  # in a timed call

  def __init__(self, size: str, batch: int, loss: str):
    task = plan_of(size).task
    draw = task.sample_pretraining if loss == "text" else task.sample
    share = jnp.array([0.9, 0.1, 0.0]) if loss == "text" else 0.5  # prior, or C_Tr
    self._draw = jax.jit(lambda key: draw(key, batch, share))
    self._key = jax.random.key(0)

  def run(self, steps: int = 1) -> None:
    """Draws that many batches."""
    for _ in range(steps):
      jax.block_until_ready(self._draw(self._key))


def sides_of(config: gpt.GPTConfig, batch: int, loss: str) -> dict[str, Any]:
  """By name, what trains the `text` or the `answer`: the next token everywhere, or the last one."""
  arrays, facts = gpt.build(config, 0)
  params, model, first = arrays["params"], gpt.restore(facts), First(config)
  strings = np.random.default_rng(0).integers(0, config.vocab_size, (batch, config.length))
  tokens, targets = strings[:, :-1], strings[:, 1:] if loss == "text" else strings[:, -1]

  def ours_logits(params, tokens) -> Any:
    if loss == "text":
      return model.text(params, tokens)
    return model.answer(params, tokens, tokens.shape[1] - 1)

  def first_logits(params, tokens) -> Any:
    logits: Any = first.apply({"params": params}, tokens)
    return logits if loss == "text" else logits[:, -1]

  sides: dict[str, Any] = {
    "ours": JaxSide(ours_logits, params, tokens, targets, steps=_STEPS_A_CALL),
    "first": JaxSide(first_logits, first_params(params), tokens, targets, steps=1),
    _LOOPED: JaxSide(first_logits, first_params(params), tokens, targets, steps=_STEPS_A_CALL),
  }
  if torch is not None:
    sides["torch explicit"] = TorchSide(config, params, tokens, targets, own=False)
    sides["torch SDPA"] = TorchSide(config, params, tokens, targets, own=True)
    sides[_COMPILED] = TorchSide(config, params, tokens, targets, own=True, compiled=True)
  return sides


def first_losses(sides: dict[str, Any]) -> dict[str, list[float]]:
  """Losses of the first two steps, which compile; a side that cannot compile is left out, and said so."""
  losses = {}
  for name, side in list(sides.items()):
    try:
      losses[name] = [side.run() for _ in range(2)]
    except Exception as error:  # torch.compile raises many kinds where there is no C++ compiler
      if name != _COMPILED:
        raise
      print(f"{name} does not work here: {str(error).strip().splitlines()[0]}")
      del sides[name]
  return losses


def measure(size: str, batch: int, loss: str, turns: int) -> list[str]:
  """Lines of the table."""
  sides = sides_of(plan_of(size).init(0).model, batch, loss)
  losses = first_losses(sides)
  if any(not np.allclose(values, losses["ours"], rtol=1e-4) for values in losses.values()):
    raise AssertionError(f"the sides do not train the same model: {losses}")
  sides["sampling"] = Sampling(size, batch, loss)
  sides["sampling"].run()
  calls = {name: functools.partial(side.run, side.steps) for name, side in sides.items()}
  times = in_turns(calls, turns, _TURN_SECONDS)
  return rows(f"{size}, {loss}, {batch}", {name: [t / sides[name].steps for t in times[name]] for name in times})


def main(_) -> None:
  use_cores(1)
  print(f"{setting()}, AdamW")
  print("| size, loss, batch | side | CPU time of a step, ms | times ours |")
  print("|---|---|---|---|")
  for size in _SIZES.value:
    batch = _PAPER_BATCH.value if size == "paper" else _QUICK_BATCH
    for loss in ("text", "answer"):
      print("\n".join(measure(size, batch, loss, TURNS.value)), flush=True)


if __name__ == "__main__":
  app.run(main)
