#!/usr/bin/env bash
# Tracr: a Map from letters to numbers writes negative numbers as 0.
#
# Guess: a numerical Map writes its value, of either sign, into one residual direction.
# Instead: a Map from a categorical to a numerical SOp writes 0 for every value below 0. A Map from numerical to
#   numerical keeps the sign, but a Map of a Map is fused into one unless simplify=False, and then loses it too.
# Why it matters: scores, differences and signed counters compile without a warning. Every sum or mean behind them is
#   wrong for strings that hold a negative letter.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q tracr-pypi==1.0.0 dm-haiku==0.0.17 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - <<'EOF'
import sys
from importlib.metadata import version

from tracr.compiler import compiling
from tracr.rasp import rasp

print("tracr-pypi", version("tracr-pypi"))


def compiled(program):
  model = compiling.compile_rasp_to_model(program, vocab={"a", "b"}, max_seq_len=3, compiler_bos="BOS")
  return [round(float(value), 2) + 0.0 for value in model.apply(["BOS", *"aba"]).decoded[1:]]


score = rasp.numerical(rasp.Map(lambda token: {"a": -1, "b": 2}[token], rasp.tokens))
shifted = rasp.numerical(rasp.Map(lambda token: {"a": 0, "b": 3}[token], rasp.tokens))
back = {fused: rasp.numerical(rasp.Map(lambda value: value - 1, shifted, simplify=fused)) for fused in (True, False)}
for name, program, wanted in (
  ("letter to -1 or 2", score, [0.0, 2.0, 0.0]),
  ("letter to 0 or 3, then minus 1", back[True], [0.0, 2.0, 0.0]),
  ("the same with simplify=False", back[False], [-1.0, 2.0, -1.0]),
):
  got = compiled(program)
  print(f"{name}, on aba: RASP {program(list('aba'))}, compiled {got}")
  if got != wanted:
    sys.exit(f"changed: the compiled answer was {wanted}")
EOF
