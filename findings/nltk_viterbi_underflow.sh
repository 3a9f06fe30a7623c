#!/usr/bin/env bash
# NLTK: ViterbiParser returns an unlikelier parse once probabilities underflow.
#
# Guess: the parser compares log probabilities, or says so when they reach zero: its result is the likeliest parse.
# Instead: it multiplies plain floats. When all parses have underflowed to 0 they are equal, and one that the
#   grammar makes 10^89 times unlikelier is returned. The only sign is that its prob() is 0.
# Why it matters: as a reference for one's own parser it agrees on short strings and silently disagrees on long ones.
#   For rules of probability 1e-4, 90 tokens are enough.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q nltk==3.10.4
cd "$work"
venv/bin/python - <<'EOF'
import math
import sys

import nltk

print("nltk", nltk.__version__)
# x^n has two parses: by P with n - 1 steps of 1e-5, by Q with n - 1 steps of 1e-4. Q is the likelier from n = 2 on.
grammar = nltk.PCFG.fromstring("""
  S -> P [0.5] | Q [0.5]
  P -> 'x' P [0.00001] | 'x' [0.99999]
  Q -> 'x' Q [0.0001] | 'x' [0.9999]
""")
parser = nltk.ViterbiParser(grammar, max_time=None)
for length, wanted in ((2, "Q"), (40, "Q"), (75, "Q"), (90, "P")):
  tree = next(parser.parse(["x"] * length))
  ratio = math.log10(0.9999 / 0.99999) + (length - 1)
  print(f"{length} tokens: {tree[0].label()}, prob {tree.prob():.3g}; Q is 10^{ratio:.0f} times as likely as P")
  if tree[0].label() != wanted:
    sys.exit(f"changed: it was {wanted}")
EOF
