#!/usr/bin/env bash
# Optax: Adam on bfloat16 parameters never forgets one large gradient.
#
# Guess: the second moment decays by 0.999 a step, with some rounding. After 10 000 small gradients, a spike is
#   forgotten (0.999^10000 is 0.00005).
# Instead: the moments take the parameters' dtype, and 0.999 in bfloat16 is 1. The second moment can only grow. After
#   one spike, all later updates stay as small as the step after it, for ever.
# Why it matters: nothing diverges and no value is NaN; the run just learns more slowly, the more so the more it has
#   seen. `mu_dtype` concerns the first moment only, so it does not help. Keep the parameters that Adam sees in float32.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - <<'EOF'
import sys

import jax
import jax.numpy as jnp
import optax

print("optax", optax.__version__)
steps = 10_000
optimizer = optax.adam(1e-3)


def after_a_spike(dtype):
  """(second moment after the spike, second moment at the end) for a gradient of 100, then of 0.01."""
  params = jnp.zeros(1, dtype)

  def step(state, gradient):
    _, state = optimizer.update(jnp.full((1,), gradient, dtype), state, params)
    return state, state[0].nu[0]

  gradients = jnp.full(steps, 0.01).at[0].set(100.0)
  _, moments = jax.lax.scan(step, optimizer.init(params), gradients)
  return float(moments[0]), float(moments[-1])


kept = {}
for dtype in (jnp.float32, jnp.bfloat16):
  first, last = after_a_spike(dtype)
  kept[dtype] = last / first
  print(f"{jnp.dtype(dtype).name}: second moment {first:.4g} after the spike, {last:.4g} after {steps} steps")
print("0.999 in bfloat16 is", float(jnp.bfloat16(0.999)))
if not (kept[jnp.float32] < 1e-3 and kept[jnp.bfloat16] >= 1):
  sys.exit("changed: float32 kept less than a thousandth, bfloat16 all of it")
EOF
