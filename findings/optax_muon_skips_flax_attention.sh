#!/usr/bin/env bash
# Optax and Flax: Muon leaves the matrices of Flax's attention to Adam, and orthogonalises their biases.
#
# Guess: Muon treats the weight matrices of a transformer, and Adam the biases.
# Instead: optax.contrib.muon takes leaves of two axes for matrices. Flax stores the kernels of attention with three
#   axes (features, heads, features of a head) and their biases with two (heads, features of a head). So query, key and
#   value give Muon their biases and Adam their kernels: the opposite of what is meant.
# Why it matters: the run trains, and a comparison of Muon with Adam measures Muon on the MLPs and on biases. State the
#   axes by `muon_weight_dimension_numbers`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q optax==0.2.8 flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - <<'EOF'
import sys

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

print("optax", optax.__version__, "flax", flax.__version__)
params = nn.MultiHeadDotProductAttention(num_heads=4, qkv_features=16).init(jax.random.key(0), jnp.ones((1, 5, 16)))
key = params["params"]["key"]

# Equal gradients but for one large entry. Adam's first step has one size for all entries; Muon's has not.
gradient = jax.tree.map(lambda x: jnp.full_like(x, 0.1).at[(0,) * x.ndim].set(100.0), key)
optimizer = optax.contrib.muon(1.0)
update, _ = optimizer.update(gradient, optimizer.init(key), key)

got = {}
for name, leaf in update.items():
  least, most = float(leaf.min()), float(leaf.max())
  got[name] = "Adam" if most - least < 1e-3 else "Muon"
  print(f"key {name} {leaf.shape}: steps from {least:.3f} to {most:.3f}, so by {got[name]}")
if got != {"kernel": "Adam", "bias": "Muon"}:
  sys.exit("changed: the kernel was updated by Adam and the bias by Muon")
EOF
