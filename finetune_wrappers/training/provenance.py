"""Device, layout, precision and versions behind a number."""

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import Any

import jax

from finetune_wrappers.models.model import Model

# What trained a lane from one step on: `from`, `layout`, `precision`, `provenance` and its commit.
Part = dict[str, Any]


def provenance() -> dict[str, str]:
  """Device, processor and versions, saved with every stage."""
  return {
    "device": jax.local_devices()[0].device_kind,
    "processor": _processor(),
    "cores": str(os.cpu_count()),
    "python": platform.python_version(),
    **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")},
  }


def precision_of(model: Model) -> str:
  """Of matrix products, as the model is trained: its own, or else the one that JAX is set to."""
  with model.numerics():
    return str(jax.config.jax_default_matmul_precision or "default")  # pyright: ignore[reportAttributeAccessIssue]


def parts_with(before: Sequence[Part], position: int, now: dict[str, Any]) -> list[Part]:
  """The parts of a lane that goes on from `position` steps; what is as it was before adds none.

  Args:
    before: the parts that its checkpoint tells of; those that begin later were lost with a damaged checkpoint.
    position: steps done.
    now: layout, precision, device, versions and commit from here on.
  """
  parts = [part for part in before if part["from"] < position]
  if parts and {**parts[-1], "from": position} == {**now, "from": position}:
    return parts
  return [*parts, {"from": position, **now}]


def _processor() -> str:
  """The processor's name if the system gives one; JAX only says `cpu`."""
  with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
    for line in lines:
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()
