"""JAX's persistent compilation cache under the workdir: a second start reads its programs instead of compiling them.

`config.compilation_cache` is `auto` (on accelerators only), `on` or `off`. A folder that the user chose, by
JAX_COMPILATION_CACHE_DIR or in JAX, is used whatever the config says.

On a CPU it is opt-in: two failures there end the process, and no Python code can catch them:

* An entry is machine code, and its key does not name the processor (jax 0.10 to 0.12). On a shared disk one machine
  could load another's code, for which XLA only logs that it may end in an illegal instruction. Each kind of processor
  therefore has its own folder. On some processors XLA refuses even its own entries (jax issue 38445), and nothing is
  gained.
* Every program, compiled or read, holds memory mappings until it is dropped (11 for a small one); Linux allows a
  process 65 530. With thousands of programs the next compilation or reading aborts; the cache neither causes nor
  prevents that.

Entries are read as they were written, so results are the same to the bit. An entry that is damaged, half-written by
another process or not writable costs a warning and a compilation. Programs that compiled in less than JAX's
jax_persistent_cache_min_compile_time_secs (1 second) are not kept. The folder may be deleted at any time.
"""

import contextlib
import hashlib
import pathlib
import platform
import warnings
from collections.abc import Iterator

import jax
from etils import epath
from jax.experimental.compilation_cache import compilation_cache

from finetune_wrappers.files import located
from finetune_wrappers.types import require

CHOICES = ("auto", "on", "off")
FOLDER = "compiled"
_OPTION = "jax_compilation_cache_dir"


@contextlib.contextmanager
def reused(choice: str, workdir: str) -> Iterator[None]:
  """A context in which programs are read from and kept in `workdir/compiled`, if the choice says so.

  Args:
    choice: one of CHOICES.
    workdir: of the run.

  Raises:
    InputError: for another choice.
  """
  require(choice in CHOICES, "compilation_cache", choice, ", ".join(CHOICES))
  wanted = choice == "on" or (choice == "auto" and jax.default_backend() != "cpu")
  own = wanted and not getattr(jax.config, _OPTION)
  with warnings.catch_warnings():
    # Where warnings are errors, a cache that fails would end a run that does not need it.
    warnings.filterwarnings("default", "Error (reading|writing) persistent compilation cache entry")
    if own:
      _use(str(folder(workdir)))
    try:
      yield
    finally:
      if own:
        _use(None)


def folder(workdir: str) -> epath.Path:
  """Where the programs of this kind of processor are kept."""
  return located(workdir) / FOLDER / hashlib.sha256(_processor().encode()).hexdigest()[:8]


def _use(path: str | None) -> None:
  """Sets the folder; without the reset JAX keeps the first one."""
  jax.config.update(_OPTION, path)
  compilation_cache.reset_cache()


def _processor() -> str:
  """Decides whether machine code runs: the architecture and, where known, its extensions."""
  found = {platform.machine(), platform.processor()}
  with contextlib.suppress(OSError):
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    found |= {line for line in lines if line.startswith(("model name", "flags", "Features"))}
  return "\n".join(sorted(found))
