"""CPU time of a Llama's training step and of its generation, beside PyTorch, which has to be installed.

    python -m benchmarks.llama_speed [--parts=train,generate] [--written=96] [--turns=3]

A step is forward, backward and AdamW in float32, on 32 strings of 128 tokens (1M parameters, 512 entries) or 8 of 256
(15M, 32000 entries); PyTorch uses `scaled_dot_product_attention`, `rms_norm` and fused AdamW. Ours takes several steps
a call, as the Trainer does: each call has to touch its memory anew. Generation is greedy, at the 15M shape, after 8
tokens; PyTorch decodes with a cache that is made once. `temperature` and `top_p` draw from 32000 entries a token.
All sides start from the same weights and have to find the same losses and tokens. They take turns on one core, and what
counts is CPU time: on a shared core the clock says little.
"""

import functools
import pathlib
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.gpt_speed import JaxSide
from benchmarks.llamas import SIZES, TorchLlama
from benchmarks.turns import TURNS, in_turns, rows, setting, torch, use_cores
from finetune_wrappers.models import llama
from finetune_wrappers.models.generate import generate

_PARTS = flags.DEFINE_list("parts", ["train", "generate"], "Which parts.")
_WRITTEN = flags.DEFINE_integer("written", 96, "Tokens written after the prompt.", lower_bound=2, upper_bound=248)
_BATCH = {"1M": 32, "15M": 8}
_STEPS_A_CALL = {"1M": 10, "15M": 3}
_STRINGS, _PROMPT = 32, 8
_TURN_SECONDS = 0.5  # or one call, if that is longer


def processor() -> str:
  """Its name, and whether it has AVX-512."""
  lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  named = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
  fields = {name.strip(): value.strip() for name, value in named.items()}
  wide = "with" if "avx512f" in fields.get("flags", "").split() else "without"
  return f"{fields.get('model name', 'unknown processor')} (family {fields.get('cpu family')}), {wide} AVX-512"


def training(size: str, turns: int) -> list[str]:
  """Lines of the table."""
  config = SIZES[size]
  arrays, facts = llama.build(config, 0)
  model = llama.restore(facts)
  strings = np.random.default_rng(0).integers(0, config.vocab_size, (_BATCH[size], config.length + 1))
  data = arrays["params"], strings[:, :-1], strings[:, 1:]
  sides = {"ours": JaxSide(model.text, *data, steps=_STEPS_A_CALL[size]), "torch SDPA": TorchLlama(config, *data)}
  losses = [[side.run() for _ in range(2)] for side in sides.values()]
  if not np.allclose(*losses, rtol=1e-4):
    raise AssertionError(f"the sides do not train the same model: {losses}")
  times = in_turns(
    {name: functools.partial(side.run, side.steps) for name, side in sides.items()}, turns, _TURN_SECONDS
  )
  return rows(f"train {size}", {name: [t / sides[name].steps for t in times[name]] for name in times})


def generation(written: int, turns: int) -> list[str]:
  """Lines of the table."""
  config = SIZES["15M"]
  arrays, facts = llama.build(config, 0)
  model, params = llama.restore(facts), jax.tree.map(jnp.asarray, arrays["params"])
  prompts = np.random.default_rng(0).integers(0, config.vocab_size, (_STRINGS, _PROMPT))
  theirs = TorchLlama(config, arrays["params"], prompts, prompts)

  def ours(strings: int, **drawn):
    lengths, never = np.full(strings, _PROMPT), config.vocab_size
    found = generate(model, params, prompts[:strings], lengths, steps=written, eos=never, **drawn)
    return jax.block_until_ready(found)

  key = jax.random.key(0)
  sides = {
    "torch, 1 string": lambda: theirs.generate(prompts[:1], written),
    "ours, 1 string": lambda: ours(1),
    f"ours, {_STRINGS} strings": lambda: ours(_STRINGS),
    f"ours, {_STRINGS} strings, temperature 1": lambda: ours(_STRINGS, temperature=1.0, key=key),
    f"ours, {_STRINGS} strings, temperature 1, top_p 0.9": lambda: ours(_STRINGS, temperature=1.0, top_p=0.9, key=key),
    f"torch, {_STRINGS} strings": lambda: theirs.generate(prompts, written),
  }
  tokens = [np.asarray(sides[f"ours, {_STRINGS} strings"]()[0]), sides[f"torch, {_STRINGS} strings"]()]
  if (tokens[0] == tokens[1]).mean() < 0.99:  # near-ties may part
    raise AssertionError("the sides do not write the same tokens")
  for call in sides.values():
    call()
  rates = {
    name: written * (_STRINGS if f"{_STRINGS} strings" in name else 1) / statistics.median(times)
    for name, times in in_turns(sides, turns, _TURN_SECONDS).items()
  }
  first = next(iter(rates.values()))
  return [f"| {name} | {rate:.0f} | {rate / first:.2f} |" for name, rate in rates.items()]


def main(_) -> None:
  if torch is None:
    raise app.UsageError("PyTorch is not installed: pip install .[bench]")
  use_cores(1)
  print(f"{processor()}; {setting()}")
  if "train" in _PARTS.value:
    print("| part | side | CPU time of a step, ms | times ours |\n|---|---|---|---|")
    for size in SIZES:
      print("\n".join(training(size, TURNS.value)), flush=True)
  if "generate" in _PARTS.value:
    print("\n| side | tokens a second of CPU time | times torch, 1 string |\n|---|---|---|")
    print("\n".join(generation(_WRITTEN.value, TURNS.value)), flush=True)


if __name__ == "__main__":
  app.run(main)
