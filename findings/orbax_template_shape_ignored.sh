#!/usr/bin/env bash
# Orbax: the shape in a template of NumPy arrays is not checked, but its dtype is imposed.
#
# Guess: restoring into a template checks shapes, as it does for JAX arrays, where a wrong one is an error.
# Instead: a NumPy array, or a jax.ShapeDtypeStruct without a sharding, gives only its dtype. The stored shape comes
#   back whatever the template says, and values are cast without a warning: 0.75 becomes 0 in a template of integers.
# Why it matters: a template from numpy.zeros or jax.eval_shape looks like a check that the checkpoint fits the model. A
#   checkpoint of another width passes it and fails later, or broadcasts.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - "$work" <<'EOF'
import sys
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

print("orbax-checkpoint", version("orbax-checkpoint"))
stored = np.array([[0.0, 0.25, 0.5], [0.75, 1.0, 1.25]], np.float32)
checkpointer = ocp.StandardCheckpointer()
checkpointer.save(f"{sys.argv[1]}/saved", {"w": stored})
checkpointer.wait_until_finished()


def restored(template):
  """What comes back, or the kind of error."""
  try:
    return np.asarray(checkpointer.restore(f"{sys.argv[1]}/saved", {"w": template})["w"]).tolist()
  except ValueError as error:
    return type(error).__name__


whole, cast = stored.tolist(), [[0, 0, 0], [0, 1, 1]]
for name, template, wanted in (
  ("JAX array [5]", jnp.zeros(5), "ValueError"),
  ("NumPy array [5]", np.zeros(5, np.float32), whole),
  ("ShapeDtypeStruct [5]", jax.ShapeDtypeStruct((5,), np.float32), whole),
  ("NumPy array [5] of int32", np.zeros(5, np.int32), cast),
):
  got = restored(template)
  print(f"stored [2, 3], template {name}: {got}")
  if got != wanted:
    sys.exit(f"changed: it was {wanted}")
EOF
