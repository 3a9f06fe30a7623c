"""Windows per second of the paper's grammar: ours, beside recursive Python and a walk through nltk's productions.

    python -m benchmarks.pcfg_sampler

All draw windows of 250 tokens (a derivation that is too short is followed by another) on one device. `ours_answered`
also asks one of the five families and answers it, and `ours_spread` rewrites half the texts so that labels spread, as
pretraining does. They take turns: on a shared machine the numbers move, the ratios of their medians hardly. The
targets are 15 times recursive Python, and 150 000 windows a second with answers.
"""

import random
import statistics
import time
from collections.abc import Callable

import jax
import nltk

from finetune_wrappers.tasks.pcfg_grammar import PAPER_GRAMMAR
from finetune_wrappers.tasks.pcfg_sampler import sample_windows
from finetune_wrappers.tasks.pcfg_text import PCFGText

_WINDOW, _BATCH, _TURNS, _SECONDS = 250, 4096, 7, 1.0
_PLAIN, _SPREAD = (jax.jit(PCFGText(spread=share).sample_pretraining, static_argnums=1) for share in (0.0, 0.5))


def ours(batches: int) -> int:
  """Number of windows drawn."""
  keys = jax.random.split(jax.random.key(0), batches)
  jax.block_until_ready([sample_windows(PAPER_GRAMMAR, key, _BATCH, length=_WINDOW, short="join") for key in keys])
  return batches * _BATCH


def ours_answered(batches: int) -> int:
  """Number of windows drawn, with questions and answers."""
  return _asked(_PLAIN, batches)


def ours_spread(batches: int) -> int:
  """Number of windows drawn, half of them rewritten, with questions and answers."""
  return _asked(_SPREAD, batches)


def _asked(sample: Callable, batches: int) -> int:
  keys = jax.random.split(jax.random.key(0), batches)
  jax.block_until_ready([sample(key, _BATCH, (0.9, 0.1, 0.0)) for key in keys])
  return batches * _BATCH


def _window(derive: Callable[[list], None]) -> list:
  text = []
  while len(text) < _WINDOW:
    derive(text)
  start = random.randrange(len(text) - _WINDOW + 1)
  return text[start : start + _WINDOW]


def python(windows: int) -> int:
  """Number of windows drawn."""
  sides = {parent: [side for side, _ in found] for parent, found in PAPER_GRAMMAR.alternatives.items()}

  def derive(symbol, text):
    for child in sides[symbol][random.random() < 0.5]:
      if child in sides:
        derive(child, text)
      else:
        text.append(child)

  for _ in range(windows):
    _window(lambda text: derive(PAPER_GRAMMAR.start, text))
  return windows


def nltk_walk(windows: int) -> int:
  """Number of windows drawn."""
  names = {symbol: f"'{symbol}'" for symbol in PAPER_GRAMMAR.terminals}
  lines = (f"{p} -> {' '.join(names.get(c, c) for c in side)} [{q}]" for p, side, q in PAPER_GRAMMAR.rules)
  grammar = nltk.PCFG.fromstring("\n".join(lines))
  found = {parent: grammar.productions(lhs=parent) for parent in {p.lhs() for p in grammar.productions()}}
  chances = {parent: [p.prob() for p in productions] for parent, productions in found.items()}

  def derive(symbol, text):
    for child in random.choices(found[symbol], chances[symbol])[0].rhs():
      if isinstance(child, str):
        text.append(child)
      else:
        derive(child, text)

  for _ in range(windows):
    _window(lambda text: derive(grammar.start(), text))
  return windows


def rate(side: Callable[[int], int], number: int) -> float:
  """Windows per second of one turn."""
  begin = time.perf_counter()
  return side(number) / (time.perf_counter() - begin)


def main() -> None:
  sides, numbers, rates = [python, nltk_walk, ours, ours_answered, ours_spread], {}, {}
  for side in sides:
    side(1)
    begin = time.perf_counter()
    side(10)
    numbers[side] = max(10, int(10 * _SECONDS / (time.perf_counter() - begin)))
  for _ in range(_TURNS):
    for side in sides:
      rates.setdefault(side, []).append(rate(side, numbers[side]))
  print(f"jax {jax.__version__}, {jax.local_devices()[0].device_kind}, windows of {_WINDOW}, batches of {_BATCH}")
  print("| sampler | windows/s, median | lowest to highest | times recursive Python |\n|---|---|---|---|")
  medians = {side: statistics.median(found) for side, found in rates.items()}
  for side in sides:
    spread = f"{min(rates[side]):.0f} to {max(rates[side]):.0f}"
    print(f"| {side.__name__} | {medians[side]:.0f} | {spread} | {medians[side] / medians[python]:.1f} |")


if __name__ == "__main__":
  main()
