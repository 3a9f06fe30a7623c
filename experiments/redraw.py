"""Draws figures and summary.md of finished runs again from their rows; trains and measures nothing.

python -m experiments.redraw runs/quickstart
"""

import pathlib
import sys
from collections.abc import Sequence

from etils import epath

from experiments import runner
from finetune_wrappers.types import InputError


def main(folders: Sequence[str]) -> int:
  """Prints the short table of each folder.

  Returns:
    Exit code: 0; 2 with one line for the first folder that cannot be drawn.
  """
  try:
    if not folders or any(folder.startswith("-") for folder in folders):
      raise InputError("folder: give one or more folders of finished runs, as runs/quickstart")
    for folder in folders:
      if not pathlib.Path(folder).is_dir() and "://" not in folder:
        raise InputError(f"folder: {folder} does not exist; give the folder of a finished run, as runs/quickstart")
      print(runner.report(epath.Path(folder)))
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
