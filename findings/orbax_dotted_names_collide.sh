#!/usr/bin/env bash
# Orbax: the leaf "a.b" and the leaf b inside "a" are stored in one place.
#
# Guess: keys of a pytree may be any string, and each leaf comes back with its own value, or saving refuses.
# Instead: the name of a stored leaf joins the keys with dots. Both leaves get one name, one overwrites the other, and
#   restoring returns its value twice. Saving and restoring report success.
# Why it matters: names with dots come from PyTorch's state dicts ("layer.0.weight"). A tree that holds some of them
#   flat and some nested loses weights in a checkpoint that looks complete.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu venv/bin/python - 2> warnings.txt <<'EOF' || { cat warnings.txt >&2; exit 1; }
import os
import sys
from importlib.metadata import version

import numpy as np
import orbax.checkpoint as ocp

print("orbax-checkpoint", version("orbax-checkpoint"))


def restored(name, tree):
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(os.path.abspath(name), tree)
    checkpointer.wait_until_finished()
    return checkpointer.restore(os.path.abspath(name))


one, two = np.full(2, 1.0), np.full(2, 2.0)
slash = restored("slash", {"a/b": one, "a": {"b": two}})
print('saved "a/b": 1 beside a: {b: 2}, restored', float(slash["a/b"][0]), "and", float(slash["a"]["b"][0]))
dot = restored("dot", {"a.b": one, "a": {"b": two}})
print('saved "a.b": 1 beside a: {b: 2}, restored one value twice:', bool((dot["a.b"] == dot["a"]["b"]).all()))
if float(slash["a/b"][0]) != 1 or float(slash["a"]["b"][0]) != 2 or (dot["a.b"] != dot["a"]["b"]).any():
  sys.exit('changed: "a/b" kept its own value and "a.b" did not')
EOF
