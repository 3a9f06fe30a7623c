"""Device and versions behind a number."""

import contextlib
import importlib.metadata
import os
import platform

import jax


def provenance() -> dict[str, str]:
  """Device, processor and versions, saved with every stage."""
  return {
    "device": jax.local_devices()[0].device_kind,
    "processor": _processor(),
    "cores": str(os.cpu_count()),
    "python": platform.python_version(),
    **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")},
  }


def _processor() -> str:
  """The processor's name if the system gives one; JAX only says `cpu`."""
  with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
    for line in lines:
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()
