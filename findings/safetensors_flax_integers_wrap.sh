#!/usr/bin/env bash
# Safetensors and JAX: one file holds other integers when it is read by the Flax loader.
#
# Guess: safetensors.flax.load_file gives the arrays of the file, or warns where JAX cannot hold their type.
# Instead: int64 becomes int32, as JAX has no 64 bits by default, and large values wrap around: 2^40 + 5 becomes 5, and
#   -2^31 - 1 becomes 2147483647. No warning is given; jnp.array(..., dtype="int64") gives one.
# Why it matters: hashes, seeds, offsets and document ids kept beside weights come back as other, plausible numbers.
#   Read such a file with safetensors.numpy, or set JAX_ENABLE_X64.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q safetensors==0.8.0 jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - <<'EOF'
import sys
import warnings
from importlib.metadata import version

import jax.numpy as jnp
import numpy as np
import safetensors.flax
import safetensors.numpy

print("safetensors", version("safetensors"), "jax", version("jax"))
stored = [2**40 + 5, 3, -(2**31) - 1]
safetensors.numpy.save_file({"ids": np.array(stored)}, "ids.safetensors")


def warned(call):
  """(result, number of warnings)."""
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    result = call()
  return result, len(caught)


numpy_ids = safetensors.numpy.load_file("ids.safetensors")["ids"].tolist()
flax_ids, silent = warned(lambda: safetensors.flax.load_file("ids.safetensors")["ids"])
_, said = warned(lambda: jnp.array([3], dtype="int64"))
print("by safetensors.numpy:", numpy_ids)
print(f"by safetensors.flax:  {flax_ids.tolist()}, {flax_ids.dtype}, {silent} warnings")
print(f'jnp.array([3], dtype="int64"): {said} warning')
if (numpy_ids, flax_ids.tolist(), silent, said) != (stored, [5, 3, 2147483647], 0, 1):
  sys.exit("changed: the Flax loader gave [5, 3, 2147483647] without a warning")
EOF
