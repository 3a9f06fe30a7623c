#!/usr/bin/env bash
# Grain: an iterator's state goes on elsewhere in the data if the batch size has changed.
#
# Guess: after 4 examples, a state restored into a pipeline with another batch size goes on at the fifth, or is refused.
# Instead: what happens hangs on where `batch` stands. Before `to_iter_dataset`, the state counts batches: after two
#   batches of 2, a batch size of 3 skips examples 4 and 5, and a batch size of 1 repeats 2 and 3. After it, the state
#   counts examples, and the data go on at the fifth.
# Why it matters: a run resumed with another batch size repeats or skips data without a word.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q grain==0.2.18 numpy==2.4.6
cd "$work"
venv/bin/python - <<'EOF'
import sys
from importlib.metadata import version

import grain

print("grain", version("grain"))


def batched_before(size):
  return iter(grain.MapDataset.range(12).batch(size).to_iter_dataset())


def batched_after(size):
  return iter(grain.MapDataset.range(12).to_iter_dataset().batch(size))


for make, size, wanted in (
  (batched_before, 3, [6, 7, 8]),
  (batched_before, 1, [2]),
  (batched_after, 3, [4, 5, 6]),
  (batched_after, 1, [4]),
):
  first = make(2)
  seen = [int(example) for _ in range(2) for example in next(first)]
  second = make(size)
  second.set_state(first.get_state())
  got = [int(example) for example in next(second)]
  print(f"{make.__name__}: seen {seen} by twos, then by {size}: {got}, state {first.get_state()}")
  if (seen, got) != ([0, 1, 2, 3], wanted):
    sys.exit(f"changed: the next batch was {wanted}")
EOF
