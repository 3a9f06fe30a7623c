"""Runs one config: trains what is missing, measures, writes rows.jsonl, summary.md and figure.png.

python -m experiments.main --config=configs/quickstart.py:quick --workdir=runs
"""

import signal
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from experiments import cluster, quiet
from experiments.stopping import Stopping
from finetune_wrappers.types import InputError

_SOME_FAILED = 1
_BAD_INPUT = 2
_SIGNALLED = 128  # and the signal's number, by convention

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "configs/<name>.py:<preset>; presets are smoke, quick and paper. Any value is set by --config.key=value.",
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be trained, its size and about how long it takes.")
_WORKDIR = flags.DEFINE_string("workdir", "runs", "Where models and results are kept; shared by all configs.")


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise InputError(f"{argv[1]!r} is not a flag; flags are --config=FILE:PRESET, --workdir=DIR and those of --help")
  if _CONFIG.value is None:
    raise InputError("config: missing; use --config=configs/<name>.py:<preset>, as configs/quickstart.py:quick")
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # Orbax logs every file it reads
  quiet.hush_failed_saves()
  if not _DRY_RUN.value:
    cluster.join()
  # Imported late: --help does not wait for JAX.
  from experiments import runner
  from finetune_wrappers.training import hosts

  if _DRY_RUN.value:
    if cluster.DISTRIBUTED.value:
      raise InputError("dry_run: not together with --distributed; run it on one host")
    from experiments import dry_run

    print(dry_run.describe(_CONFIG.value, _WORKDIR.value))
    return
  with Stopping() as stopping:
    try:
      folder, short, diverged = runner.run(_CONFIG.value, _WORKDIR.value, stopping)
    except runner.Interrupted as error:
      print(f"{error}; the same command goes on from there", file=sys.stderr)
      sys.exit(_SIGNALLED + (stopping.signal or signal.SIGTERM))  # another host may have had the signal
    except runner.LanesFailed as error:
      print(f"error: {error}; the others are trained and kept", file=sys.stderr)
      sys.exit(_SOME_FAILED)
  if not hosts.is_first():
    return
  print(short)
  for path in sorted(folder.iterdir()):
    print(path)
  if diverged:
    print(f"error: diverged and left out: {'; '.join(diverged)}", file=sys.stderr)
    sys.exit(_SOME_FAILED)


def _parse(argv: list[str]) -> list[str]:
  """Parses flags; any error of a config file or an override becomes one line."""
  try:
    rest = flags.FLAGS(argv)
    if _CONFIG.value is not None:
      str(_CONFIG.value.setting)  # config_flags raises for a missing file only when the config is used
      if "preset" in config_flags.get_override_values(flags.FLAGS["config"]):
        raise InputError("preset: is chosen after the colon; use --config=FILE:PRESET")
    return rest
  except (KeyError, AttributeError) as error:
    raise InputError(
      f"config: {error} is not one of its keys; see configs/common.py and its setting's *_common.py"
    ) from error
  except (flags.Error, OSError, TypeError, ValueError, SyntaxError, ImportError) as error:
    raise InputError(_last_line(error)) from error


def _last_line(error: Exception) -> str:
  """The error without config_flags' traceback."""
  text = str(error).strip()
  if "Traceback" in text:
    return text.splitlines()[-1].rpartition("Error: ")[2].strip()
  if "No such file" in text:
    return "config: that file does not exist; use configs/<name>.py:<preset>, as configs/quickstart.py:quick"
  return " ".join(text.split())


def run() -> None:
  """Entry point.

  Exit code 0; 1 and a list if some runs diverged or did not fit into memory; 2 for bad input with one line; 130 or 143
  after SIGINT or SIGTERM.
  """
  try:
    app.run(main, flags_parser=_parse)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(_BAD_INPUT)
  except KeyboardInterrupt as error:
    print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
    sys.exit(_SIGNALLED + (error.args or (signal.SIGINT,))[0])


if __name__ == "__main__":
  run()
