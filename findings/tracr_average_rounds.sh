#!/usr/bin/env bash
# Tracr: a Map on an average sees 2/3 as 1/2.
#
# Guess: averages of 0 and 1 over three tokens are 0, 1/3, 2/3 and 1, and the compiled Map reads each of them, if need
#   be after `mlp_exactness` is raised.
# Instead: the compiler gives an average the value set {0, 1, 1/2, 1/3, ...}. A Map is built for these values only; any
#   other is taken for the nearest one, here 2/3 for 1/2. No exactness helps, and nothing is reported.
# Why it matters: a threshold on a share ("more than 60 percent are x") compiles, agrees with RASP on most strings, and
#   is wrong on the rest.
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
is_x = rasp.numerical(rasp.Map(lambda token: int(token == "x"), rasp.tokens))
everywhere = rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.TRUE)
share = rasp.numerical(rasp.Aggregate(everywhere, is_x, default=0))
program = rasp.Map(lambda value: value > 0.6, share)

seen = {}
for exactness in (100, 1000):
  model = compiling.compile_rasp_to_model(
    program, vocab={"x", "y"}, max_seq_len=3, compiler_bos="BOS", mlp_exactness=exactness
  )
  for string in ("xxx", "xxy", "xyy"):
    seen[string] = program(list(string))[0], model.apply(["BOS", *string]).decoded[1]
    print(f"mlp_exactness {exactness}, {string}: share of x above 0.6, (RASP, compiled):", seen[string])
  wanted = {"xxx": (True, True), "xxy": (True, False), "xyy": (False, False)}
  if seen != wanted:
    sys.exit(f"changed: (RASP, compiled) were {wanted}")
EOF
