"""Several hosts that run one command: flags, and JAX's own distributed runtime.

Every host runs the same command. On TPU pods, SLURM and Open MPI JAX finds the rest (`--distributed` is enough);
elsewhere three flags give it.
"""

from typing import Any

from absl import flags

from finetune_wrappers.types import InputError, require

DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Train on several hosts, each of which runs this command.")
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of process 0, where JAX cannot find it.")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many hosts, where JAX cannot find it.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Number of this host, from 0, where JAX cannot find it.")


def join() -> None:
  """With `--distributed`, joins the other hosts; call it before anything asks JAX for a device.

  Raises:
    InputError: for flags that do not fit each other, or hosts that are not found.
  """
  given: dict[str, Any] = {flag.name: flag.value for flag in (_COORDINATOR, _PROCESSES, _PROCESS)}
  if not DISTRIBUTED.value:
    for name, value in given.items():
      require(value is None, name, value, "it together with --distributed")
    return
  number, place = _PROCESSES.value, _PROCESS.value
  require(number is None or number > 0, "num_processes", number, "1 or more")
  require(place is None or 0 <= place < (number or place + 1), "process_id", place, f"0 to {(number or 0) - 1}")
  import jax

  try:
    jax.distributed.initialize(**given)
  except (ValueError, RuntimeError) as error:
    needed = ", ".join(f"--{name}" for name in given)
    raise InputError(f"distributed: {' '.join(str(error).split())}; outside TPU pods and SLURM use {needed}") from error
