#!/usr/bin/env bash
# Flax Linen: a decode cache that is full goes on, and writes each new token over the last slot.
#
# Guess: a step past the cache's length raises an error, or the oldest token leaves the window.
# Instead: the write position is clamped. The new key and value replace those of the previous token, the old ones
#   stay, and attention runs over this mixture. cache_index counts on as if nothing had happened.
# Why it matters: text generated past the length that the cache was made for is finite and fluent, and no longer
#   conditioned on what was just written.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - <<'EOF'
import sys

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

print("flax", flax.__version__)
tokens = jax.random.normal(jax.random.key(0), (1, 6, 8))
attention = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)
decoder = attention.clone(decode=True)
variables = decoder.init(jax.random.key(1), tokens[:, :4])  # a cache for four tokens
params, cache = variables["params"], variables["cache"]


def attend(positions):
  """What the last of these tokens gets from attention over all of them, without a cache."""
  return attention.apply({"params": params}, tokens[:, positions])[:, -1]


for step in range(6):
  out, changed = decoder.apply({"params": params, "cache": cache}, tokens[:, step : step + 1], mutable=["cache"])
  cache = changed["cache"]
  sees = [p for p in range(min(step, 3))] + [step]  # past the end: the first three and the new one
  all_before = bool(jnp.allclose(out[:, 0], attend(jnp.arange(step + 1)), atol=1e-5))
  mixture = bool(jnp.allclose(out[:, 0], attend(jnp.array(sees)), atol=1e-5))
  print(f"step {step}, cache_index {cache['cache_index']}: as over all tokens {all_before}, as over {sees} {mixture}")
  if (all_before, mixture) != (step < 4, True):
    sys.exit(f"changed: it was {(step < 4, True)}")
EOF
