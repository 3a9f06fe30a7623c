"""Two runs compared from their rows: paired by seed, cell by cell, nothing dropped without being counted."""

import math
import pathlib

import numpy as np
import pytest
from handmade import rows_of, tuned

from finetune_wrappers import InputError, compare_runs, read_rows

RESULTS = pathlib.Path(__file__).parents[1] / "results"


def test_a_cell_is_paired_by_seed_and_named_by_its_fields():
  run = [{**row, "experiment": "other"} for row in tuned([0.5, 0.7, 0.9])]
  (cell,) = compare_runs(run=run, base=tuned([0.4, 0.5, 0.8])).cells
  gains = np.array([0.1, 0.2, 0.1])
  assert cell.difference.mean == pytest.approx(gains.mean())
  half = 4.302653 * gains.std(ddof=1) / math.sqrt(3)  # Student's t, 2 degrees of freedom
  assert cell.difference.interval == pytest.approx((gains.mean() - half, gains.mean() + half), rel=1e-5)
  assert (cell.run.mean, cell.base.mean) == pytest.approx((0.7, 1.7 / 3))
  assert (cell.fields["c_tr"], cell.fields["metric"], cell.fields["step"]) == (1.0, "acc_ft", 10)
  assert not {"seed", "value", "experiment", "diverged"} & cell.fields.keys()


def test_what_only_one_of_them_has_is_counted():
  run = tuned([0.5, 0.7, 0.9]) + tuned([0.1], c_te=1) + tuned([0.1], c_tr=0.0)
  base = [row for row in tuned([0.4, 0.5, 0.8, 0.2]) if row["seed"] > 0] + tuned([0.3], rate=0.01)
  base += [{**row, "seed": 9} for row in tuned([0.1], c_te=1)]
  found = compare_runs(run=run, base=base)
  assert (len(found.cells), found.only_run, found.only_base) == (1, 2, 2)
  assert (found.cells[0].difference.n, found.cells[0].difference.mean) == (2, pytest.approx(0.15))


def test_a_missing_field_is_a_null_one_and_a_diverged_seed_is_counted():
  run = [{**row, "mix": None} for row in tuned([0.5, None, 0.9])]
  (cell,) = compare_runs(run=run, base=tuned([0.4, 0.5, None])).cells
  assert (cell.difference.n_diverged, cell.difference.n) == (2, 3) and cell.difference.mean == pytest.approx(0.1)


def test_runs_that_share_nothing_and_seeds_that_come_twice_are_refused():
  with pytest.raises(InputError, match=r"\Abase: shares no cell and seed [^\n]*\Z"):
    compare_runs(run=tuned([0.5]), base=rows_of("reft", "acc_pt", [0.5]))
  with pytest.raises(InputError, match="seed: 0 comes twice"):
    compare_runs(run=tuned([0.5]) * 2, base=tuned([0.5]))


def test_shipped_runs_differ_as_their_rows_say():
  names = ("max_identifier", "max_identifier_averaged")
  run, base = (read_rows(RESULTS / "tab03" / name / "rows.jsonl") for name in names)
  found = compare_runs(run=run, base=base)
  wanted = {"stage": "finetune", "metric": "acc_ft", "learning_rate": 0.0001, "c_tr": 1.0, "c_te": 1, "step": 10_000}
  (cell,) = [cell for cell in found.cells if wanted.items() <= cell.fields.items()]
  values = [row["value"] for rows in (run, base) for row in rows if row["seed"] == 0 and wanted.items() <= row.items()]
  assert cell.difference.mean == pytest.approx(values[0] - values[1]) and cell.difference.n == 1
