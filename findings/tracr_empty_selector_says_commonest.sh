#!/usr/bin/env bash
# Tracr: where a selector selects nothing, the compiled program answers with the commonest letter of the string.
#
# Guess: RASP says None (the default of an Aggregate) where nothing is selected, so the compiled model says None too,
#   or the letter of the beginning-of-sequence position.
# Instead: the attention's scores are all low, and what leaks to the string's letters through the softmax is tiny but
#   not 0. The answer is the argmax over letters, which picks the letter with the largest leak: the commonest.
# Why it matters: the model has a definite, meaningful looking answer where the program has none. A test that skips
#   None does not see it, and an analysis takes it for computed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q tracr-pypi==1.0.0 dm-haiku==0.0.17 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - <<'EOF'
import itertools
import sys
from importlib.metadata import version

from tracr.compiler import compiling
from tracr.rasp import rasp

print("tracr-pypi", version("tracr-pypi"))
at_z = rasp.Select(rasp.tokens, rasp.tokens, lambda key, query: key == "z")
program = rasp.Aggregate(at_z, rasp.tokens, default=None)
model = compiling.compile_rasp_to_model(program, vocab={"x", "y", "z"}, max_seq_len=5, compiler_bos="BOS")

strings = ["".join(letters) for letters in itertools.product("xy", repeat=5)]  # none holds a z
commonest = 0
for string in strings:
  if program(list(string)) != [None] * 5:
    sys.exit(f"changed: RASP no longer says None on {string}")
  answer = model.apply(["BOS", *string]).decoded[1:]
  if string in ("xxyxx", "yxyxy"):
    print(f"the letter z of {string}: RASP says None, the compiled model", answer)
  commonest += answer == [max("xy", key=string.count)] * 5
print(f"the commonest letter at every position: {commonest} of {len(strings)} strings")
if commonest != len(strings):
  sys.exit(f"changed: it was the commonest letter on all {len(strings)} strings")
EOF
