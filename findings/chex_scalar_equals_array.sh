#!/usr/bin/env bash
# Chex: assert_trees_all_equal passes a scalar against an array of any shape.
#
# Guess: equal trees have leaves of equal shape and value; a vector of three zeros does not equal the number 0.
# Instead: a 0-d array equals any array whose entries all have its value, in assert_trees_all_equal and in
#   assert_trees_all_close. A vector of length 1 against one of length 3 does fail.
# Why it matters: a test that compares gradients or states with 0.0 passes for every shape, also for that of a sum over
#   the wrong axis. assert_trees_all_equal_shapes beside it sees the difference.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q chex==0.1.92 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - <<'EOF'
import sys

import chex
import jax.numpy as jnp

print("chex", chex.__version__)


def passes(check, one, two):
  try:
    check({"bias": one}, {"bias": two})
  except AssertionError:
    return False
  return True


zeros = jnp.zeros(3)
for check, wanted in (
  (chex.assert_trees_all_equal, [True, False]),
  (chex.assert_trees_all_close, [True, False]),
  (chex.assert_trees_all_equal_shapes, [False, False]),
):
  got = [passes(check, zeros, other) for other in (jnp.zeros(()), jnp.zeros(1))]
  print(f"{check.__name__}: zeros(3) passes against zeros(()), zeros(1): {got}")
  if got != wanted:
    sys.exit(f"changed: it was {wanted}")
EOF
