#!/usr/bin/env bash
# Grain: shards of one seeded dataset draw the same random numbers.
#
# Guess: with dataset.seed(3), random_map draws from a generator of its own for each element, so an element gets the
#   same numbers however the data are split among processes.
# Instead: the generator goes by the position in the sliced dataset. After `dataset[shard::count]`, the k-th element of
#   every shard gets the same numbers; before the slice each element has its own.
# Why it matters: sharding right after the source is the usual order. Noise, masks and augmentations of all processes
#   are then copies of each other in every step, and an element's numbers change with the count of processes.
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


def draw(_, generator):
  return int(generator.integers(1000))


source = grain.MapDataset.range(6).seed(3)
after = [list(source[shard::2].random_map(draw)) for shard in range(2)]
before = [list(source.random_map(draw)[shard::2]) for shard in range(2)]
print("slice, then random_map: shard 0", after[0], "shard 1", after[1])
print("random_map, then slice: shard 0", before[0], "shard 1", before[1])
if after[0] != after[1] or set(before[0]) & set(before[1]):
  sys.exit("changed: shards drew equal numbers after the slice and different ones before it")
EOF
