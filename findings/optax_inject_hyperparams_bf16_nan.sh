#!/usr/bin/env bash
# Optax: inject_hyperparams makes Adam on bfloat16 parameters return NaN at the first step.
#
# Guess: inject_hyperparams(adam)(0.001) is adam(0.001) whose learning rate can be read and changed.
# Instead: it casts every hyperparameter to the dtype of the first leaf. In bfloat16, b2 = 0.999 becomes 1, the bias
#   correction divides by 1 - 1, and every update is NaN. With a float32 leaf first in the tree, all is well: whether
#   it works hangs on the names of the parameters.
# Why it matters: wrapping an optimizer to log its learning rate breaks a run that worked. `hyperparam_dtype` avoids it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - <<'EOF'
import sys

import jax.numpy as jnp
import optax

print("optax", optax.__version__)
small = {"kernel": jnp.ones(1, jnp.bfloat16)}
cases = {
  "adam": (optax.adam(1e-3), small, True),
  "inject_hyperparams(adam)": (optax.inject_hyperparams(optax.adam)(1e-3), small, False),
  "inject_hyperparams(adam), hyperparam_dtype float32": (
    optax.inject_hyperparams(optax.adam, hyperparam_dtype=jnp.float32)(1e-3), small, True
  ),
  "inject_hyperparams(adam), a float32 leaf sorts first": (
    optax.inject_hyperparams(optax.adam)(1e-3), {"bias": jnp.ones(1), **small}, True
  ),
}
for name, (optimizer, params, was_finite) in cases.items():
  grads = {key: jnp.full_like(value, 0.1) for key, value in params.items()}
  updates, state = optimizer.update(grads, optimizer.init(params), params)
  b2 = f", b2 {float(state.hyperparams['b2']):.4g}" if hasattr(state, "hyperparams") else ""
  print(f"{name}: update of the bfloat16 kernel {float(updates['kernel'][0]):.4g}{b2}")
  if bool(jnp.isfinite(updates["kernel"][0])) != was_finite:
    sys.exit(f"changed: the update was {'finite' if was_finite else 'NaN'}")
EOF
