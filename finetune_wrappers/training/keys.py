"""How random keys are derived, so that no two uses of a run have the same one.

In JAX `split(key, n)[i]` is `fold_in(key, i)`, so a small number folded into a key gives a key that its other user gets
by splitting it. Here a key has one user, who may split it; every further use has a name.
"""

import zlib
from typing import Any

import jax


def key_for(key: Any, use: str) -> Any:
  """The key of one named use, beside whatever `key` itself is split into (fewer than 2**31 parts)."""
  return jax.random.fold_in(key, 2**31 | zlib.crc32(use.encode()))
