#!/usr/bin/env bash
# safetensors: a transposed NumPy array is saved with its values in another order.
#
# Guess: save_file writes what the array shows, as np.save does, or refuses an array that is not contiguous.
# Instead: it writes the array's memory under the array's shape. A transposed view comes back with the right shape and
#   dtype and with wrong values, without a word. The docstring asks for contiguous arrays; nothing checks it.
# Why it matters: PyTorch keeps a linear layer as [out, in], Flax as [in, out], so every conversion between them saves
#   `weight.T`. Where in = out no shape betrays it. np.ascontiguousarray before saving is right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6
cd "$work"
venv/bin/python - <<'EOF'
import io
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

print("safetensors", safetensors.__version__)
kernel = np.arange(6, dtype=np.float32).reshape(2, 3).T


def through_safetensors(array):
  save_file({"kernel": array}, "model.safetensors")
  return load_file("model.safetensors")["kernel"].tolist()


through_numpy = io.BytesIO()
np.save(through_numpy, kernel)
through_numpy.seek(0)
right, wrong = [[0, 3], [1, 4], [2, 5]], [[0, 1], [2, 3], [4, 5]]
for name, got, wanted in (
  ("np.save", np.load(through_numpy).tolist(), right),
  ("safetensors", through_safetensors(kernel), wrong),
  ("safetensors after np.ascontiguousarray", through_safetensors(np.ascontiguousarray(kernel)), right),
):
  print(f"{kernel.tolist()} through {name}: {got}")
  if got != wanted:
    sys.exit(f"changed: it was {wanted}")
EOF
