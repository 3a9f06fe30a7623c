#!/usr/bin/env bash
# Optax: clip_by_global_norm lets bfloat16 gradients through that are longer than the limit.
#
# Guess: the norm of bfloat16 leaves is right to about a percent, as that of one large leaf is.
# Instead: the leaves' sums of squares are added one by one in bfloat16. From 256 equal leaves on, the next one is half
#   a unit in the last place or less and adds nothing. The norm stands still; the clipped gradient is too long.
# Why it matters: the more layers, the weaker the clipping, and a logged gradient norm has a ceiling. A few hundred
#   leaves are usual: a transformer's block has about twelve.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - <<'EOF'
import sys

import jax.numpy as jnp
import numpy as np
import optax

print("optax", optax.__version__)


def true_norm(tree):
  return sum(float((np.asarray(leaf, np.float64) ** 2).sum()) for leaf in tree) ** 0.5


clip = optax.clip_by_global_norm(1.0)
for leaves, wanted in ((1, 1.0), (256, 1.0), (600, 1.53), (1200, 2.17)):
  grads = [jnp.ones(1200 // leaves if leaves == 1 else 1, jnp.bfloat16)] * leaves
  clipped, _ = clip.update(grads, clip.init(grads))
  got = true_norm(clipped)
  measured = float(optax.global_norm(grads))
  print(f"{leaves} leaves: norm {true_norm(grads):.2f}, by Optax {measured:.2f}; after clipping to 1: {got:.2f}")
  if abs(got - wanted) > 0.02:
    sys.exit(f"changed: it was {wanted}")
EOF
