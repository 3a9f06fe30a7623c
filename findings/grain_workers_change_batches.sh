#!/usr/bin/env bash
# Grain: whether the number of workers changes the batches hangs on which side of to_iter_dataset() they are made.
#
# Guess: worker processes only make loading faster. Without shuffling, the batches are the same for any number of them.
# Instead: this holds for MapDataset.batch. IterDataset.batch runs inside each worker, on that worker's stride of the
#   data: with two workers a batch holds every other element, and there is an incomplete batch for each worker.
# Why it matters: batches behind a filter must be made on the IterDataset. Such a run repeats only with as many workers
#   as before, and with drop_remainder the number of dropped elements grows with them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q grain==0.2.18 numpy==2.4.6
cd "$work"
cat > batches.py <<'EOF'
import sys
from importlib.metadata import version

import grain


def batches(dataset, workers):
  if workers:
    dataset = dataset.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=workers))
  return [[int(element) for element in batch] for batch in dataset]


if __name__ == "__main__":
  print("grain", version("grain"))
  numbers = grain.MapDataset.range(8)
  in_order, in_strides = [[0, 1, 2], [3, 4, 5], [6, 7]], [[0, 2, 4], [1, 3, 5], [6], [7]]
  for name, dataset, workers, wanted in (
    ("batch before to_iter_dataset", numbers.batch(3).to_iter_dataset(), 0, in_order),
    ("batch before to_iter_dataset", numbers.batch(3).to_iter_dataset(), 2, in_order),
    ("batch after to_iter_dataset", numbers.to_iter_dataset().batch(3), 0, in_order),
    ("batch after to_iter_dataset", numbers.to_iter_dataset().batch(3), 2, in_strides),
  ):
    got = batches(dataset, workers)
    print(f"{name}, {workers} workers: {got}")
    if got != wanted:
      sys.exit(f"changed: it was {wanted}")
EOF
venv/bin/python batches.py 2> warnings.txt || { cat warnings.txt >&2; exit 1; }
