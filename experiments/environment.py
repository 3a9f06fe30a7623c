"""What the command needs of its surroundings: Python's asserts, and devices that JAX can find."""

import contextlib
import os
import sys

from finetune_wrappers.types import InputError, require

_DEVICES = "JAX_NUM_CPU_DEVICES"


def check() -> None:
  """Raises InputError for variables that would end a run later, without a word of why; needs no JAX."""
  if sys.flags.optimize:
    raise InputError("PYTHONOPTIMIZE: Tracr and Haiku need their assert statements; unset it, and use no -O")
  number = os.environ.get(_DEVICES)
  fine = number is None or (number.isascii() and number.isdecimal() and int(number) > 0)
  require(fine, _DEVICES, number, "a whole number from 1, or unset it for one device a core")


def use_all_cores() -> None:
  """One simulated CPU device for each core, so that lanes run side by side; starts JAX's backend.

  JAX accepts this only before its backend starts; a notebook that has used JAX already keeps its devices.
  JAX_NUM_CPU_DEVICES overrides it.

  Raises:
    InputError: where JAX finds no device, or computes in float64.
  """
  import jax

  if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
    raise InputError("JAX_ENABLE_X64: models are trained in float32; unset it")
  if _DEVICES not in os.environ:
    with contextlib.suppress(RuntimeError):
      jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # a platform that is known and not there fails an assertion
    platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    why = " ".join(str(error).split()) or "no such device"
    raise InputError(f"JAX_PLATFORMS: {platforms!r} cannot be used ({why}); use cpu, or unset it") from error
