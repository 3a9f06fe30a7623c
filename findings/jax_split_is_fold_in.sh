#!/usr/bin/env bash
# JAX: split(key, n)[i] and fold_in(key, i) are the same key.
#
# Guess: split and fold_in are two ways to derive keys, and keys from one never meet keys from the other.
# Instead: with the default generator both hash the key with the number i, so child i of a split is fold_in(key, i), for
#   any n. Also split(key, 2) is the beginning of split(key, 5). The generator "unsafe_rbg" keeps them apart.
# Why it matters: a loop that takes fold_in(key, step) for its batches, beside split(key) for initialisation and
#   dropout, uses the keys of steps 0 and 1 twice. Nothing reports it, and the two uses are not independent. Derive all
#   keys from one parent in one way.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - <<'EOF'
import sys

import jax

print("jax", jax.__version__)
init, dropout = jax.random.split(jax.random.key(0))
step_1 = jax.random.fold_in(jax.random.key(0), 1)
print("normal of split(key)[1]:    ", jax.random.normal(dropout, 3))
print("normal of fold_in(key, 1):  ", jax.random.normal(step_1, 3))


def equal(implementation, seed, n):
  """Whether each child of a split into n is a fold_in."""
  key = jax.random.key(seed, impl=implementation)
  return all(bool(child == jax.random.fold_in(key, i)) for i, child in enumerate(jax.random.split(key, n)))


for implementation, wanted in (("threefry2x32", True), ("rbg", True), ("unsafe_rbg", False)):
  got = {equal(implementation, seed, n) for seed in range(5) for n in (2, 3, 8)}
  print(f"{implementation}: split(key, n)[i] is fold_in(key, i) for 5 keys and n of 2, 3 and 8:", got)
  if got != {wanted}:
    sys.exit(f"changed: it was {wanted} for {implementation}")
EOF
