#!/usr/bin/env bash
# Grain: the second epoch of seed 0 is the first epoch of seed 1.
#
# Guess: `shuffle(seed=0)` and `shuffle(seed=1)` give orders that have nothing in common, in every epoch.
# Instead: epoch e is shuffled with the number seed + e. Runs with seeds 0, 1, 2 see one sequence of orders, each run an
#   epoch ahead of the one before. `dataset.seed(s).shuffle()` hashes s first, and there no epoch is shared.
# Why it matters: seeds 0, 1, 2 are what everybody uses for repeats. Over several epochs their data orders are copies of
#   each other, and the spread over seeds, from which intervals are made, comes from fewer orders than it says.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q grain==0.2.18 numpy==2.4.6
cd "$work"
venv/bin/python - 2> warnings.txt <<'EOF' || { cat warnings.txt >&2; exit 1; }
import sys
from importlib.metadata import version

import grain

print("grain", version("grain"))
numbers = grain.MapDataset.range(10)


def epochs(dataset):
  found = [int(element) for element in dataset.repeat(3)]
  return [tuple(found[start : start + 10]) for start in (0, 10, 20)]


given = [epochs(numbers.shuffle(seed=seed)) for seed in range(3)]
hashed = [epochs(numbers.seed(seed).shuffle()) for seed in range(3)]
for name, orders in (("shuffle(seed=s)", given), ("seed(s).shuffle()", hashed)):
  for seed, found in enumerate(orders):
    print(f"{name}, seed {seed}:", *("".join(map(str, order)) for order in found))
shared = given[0][1:] == given[1][:2] and given[1][1:] == given[2][:2]
if not shared or len({order for found in hashed for order in found}) < 9:
  sys.exit("changed: epoch e of seed s was epoch e - 1 of seed s + 1, and not behind seed(s)")
EOF
