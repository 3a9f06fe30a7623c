#!/usr/bin/env bash
# ml_collections: a tuple given twice on the command line is joined, and its entries may be of any type.
#
# Guess: the last of two flags wins, as it does for numbers, and a tuple of integers stays one.
# Instead: a second value for a tuple is appended to the first, not to the default. What is no Python literal becomes a
#   tuple with one string: "" gives ("",) in a field of integers, and a,b gives ("a,b",). A number is checked.
# Why it matters: a launcher that puts a user's flags after its own ("the last wins") trains the union of both sets of
#   seeds, and an empty shell variable gives a seed that is a string.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q ml_collections==1.1.0 absl-py==2.5.1
cd "$work"
venv/bin/python - <<'EOF'
import sys
from importlib.metadata import version

from absl import flags
from ml_collections import config_dict, config_flags

print("ml_collections", version("ml_collections"))


def parsed(*arguments):
  """The config after these arguments, or the kind of error."""
  sys.argv = ["program", *arguments]  # ml_collections declares the flags that it finds here
  values = flags.FlagValues()
  config = config_dict.create(seeds=(1, 2), names=("x",), steps=3)
  config_flags.DEFINE_config_dict("config", config, flag_values=values)
  try:
    values(sys.argv)
  except flags.IllegalFlagValueError as error:
    return type(error).__name__
  return {key: config[key] for key in ("seeds", "names", "steps")}


default = {"seeds": (1, 2), "names": ("x",), "steps": 3}
for arguments, wanted in (
  (("--config.steps=5", "--config.steps=6"), {**default, "steps": 6}),
  (("--config.seeds=(7,)",), {**default, "seeds": (7,)}),
  (("--config.seeds=(0,)", "--config.seeds=(7,)"), {**default, "seeds": (0, 7)}),
  (("--config.seeds=",), {**default, "seeds": ("",)}),
  (("--config.names=a,b",), {**default, "names": ("a,b",)}),
  (("--config.steps=",), "IllegalFlagValueError"),
):
  got = parsed(*arguments)
  print(*arguments, "->", got)
  if got != wanted:
    sys.exit(f"changed: it was {wanted}")
EOF
