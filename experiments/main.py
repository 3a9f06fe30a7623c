"""Runs one config: trains what is missing, measures, writes rows.jsonl, summary.md and figure.png.

python -m experiments.main --config=configs/quickstart.py:quick --workdir=runs

Results go to WORKDIR/NAME, where NAME is the config's; --config.name=OTHER keeps them elsewhere. Rows of another
config are never replaced: the command refuses. More seeds, rates and the like of one config extend it.
python -m experiments.redraw WORKDIR/NAME draws the figures again from the rows.
"""

import functools
import os
import signal
import sys
from collections.abc import Sequence

from absl import app, flags, logging

from experiments import cluster, config_file, environment, quiet
from experiments.stopping import Stopping, discarded
from finetune_wrappers.types import InputError

_SOME_FAILED = 1
_BAD_INPUT = 2
_SIGNALLED = 128  # and the signal's number, by convention

_CONFIG = flags.DEFINE_string(
  "config",
  None,
  "configs/<name>.py:<preset>; presets are smoke, quick and paper. Any value is set by --config.key=value.",
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be trained, its size and about how long it takes.")
_WORKDIR = flags.DEFINE_string("workdir", "runs", "Where models and results are kept; shared by all configs.")


def main(overrides: Sequence[config_file.Override], argv: list[str]) -> None:
  if len(argv) > 1:
    raise InputError(f"{argv[1]!r} is not a flag; flags are --config=FILE:PRESET, --workdir=DIR and those of --help")
  if not _CONFIG.value:
    raise InputError("config: missing; use --config=configs/<name>.py:<preset>, as configs/quickstart.py:quick")
  config = config_file.load(_CONFIG.value, overrides)
  environment.check()
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

    with discarded():
      print(dry_run.describe(config, _WORKDIR.value))
    return
  with Stopping() as stopping:
    try:
      folder, short, diverged = runner.run(config, _WORKDIR.value, stopping)
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
    if not path.name.startswith("."):  # another process may be writing
      print(path)
  if diverged:
    print(f"error: diverged and left out: {'; '.join(diverged)}", file=sys.stderr)
    sys.exit(_SOME_FAILED)


def _expanded(argv: list[str]) -> list[str]:
  """Arguments with those of --flagfile in its place."""
  try:
    return flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
  except flags.Error as error:
    raise InputError(" ".join(str(error).split())) from error


def _parse(argv: list[str]) -> list[str]:
  """Parses flags; any error becomes one line."""
  try:
    return flags.FLAGS(argv)
  except (flags.Error, OSError) as error:
    raise InputError(" ".join(str(error).split())) from error


def run() -> None:
  """Entry point.

  Exit code 0; 1 and a list if some runs diverged or did not fit into memory; 2 for bad input with one line; 130 or 143
  after SIGINT or SIGTERM.
  """
  try:
    argv, overrides = config_file.split(_expanded(sys.argv))
    app.run(functools.partial(main, overrides), argv=argv, flags_parser=_parse)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(_BAD_INPUT)
  except KeyboardInterrupt as error:
    print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr, flush=True)
    sys.stdout.flush()
    # Not sys.exit: after an interrupted compilation Python's own end crashes in JAX's threads.
    os._exit(_SIGNALLED + (error.args or (signal.SIGINT,))[0])


if __name__ == "__main__":
  run()
