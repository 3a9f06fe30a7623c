#!/usr/bin/env bash
# Tracr: reading a label changes what a program compiles to.
#
# Guess: `expression.label` only reads. `copy()` says that it makes "a shallow copy with a new ID".
# Instead: the id is drawn at the first read and cached in the object, and a copy takes the cached one along. After
#   `count.label`, `count` and its copy `rasp.numerical(count)` have one label, so the compiler takes them for one node
#   and a part of the program is lost. Without the read, the same lines compile correctly.
# Why it matters: a line that prints or logs labels for debugging, or compiles a part first to look at it, makes the
#   model of the whole program wrong. RASP's own evaluation stays right, so the two disagree without an error.
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


def answers(read):
  """Count of the same letter, and 10 more where it is 2, on xxy: by RASP, and compiled."""
  count = rasp.SelectorWidth(rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.EQ))
  if read:
    _ = count.label
  bonus = rasp.numerical(rasp.Map(lambda value: 10 * (value == 2), count))
  total = rasp.numerical(rasp.LinearSequenceMap(bonus, rasp.numerical(count), 1, 1))
  model = compiling.compile_rasp_to_model(total, vocab={"x", "y"}, max_seq_len=3, compiler_bos="BOS")
  return total(list("xxy")), [round(float(value), 3) for value in model.apply(["BOS", *"xxy"]).decoded[1:]]


for read, compiled in ((False, [12.0, 12.0, 1.0]), (True, [2.0, 2.0, 1.0])):
  got = answers(read)
  print(f"label {'read' if read else 'not read'} before compiling: RASP {got[0]}, compiled {got[1]}")
  if got != ([12, 12, 1], compiled):
    sys.exit(f"changed: RASP gave [12, 12, 1] and the compiled model {compiled}")
EOF
