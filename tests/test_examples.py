"""The examples run as they stand and show what they say."""

import pathlib
import runpy

import pytest

from finetune_wrappers.reporting.rows import read_rows, select

FOLDER = pathlib.Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_an_example_has_at_most_forty_lines(path):
  assert len(path.read_text().splitlines()) <= 40


def test_ones_own_program_is_wrapped_and_revived_before_its_control():
  found = runpy.run_path(str(FOLDER / "own_program.py"))
  for run in found["runs"]:
    assert run.curve("acc_pt", c_te=0)[0] > 0.95, "compiled, and tested on strings that are held out"
    assert run.curve("acc_ft", c_te=1)[-1] > 0.9 > 0.5 > run.curve("acc_ft", c_te=0)[-1]
  assert found["pruned"].curve("acc_pt", "gradient", c_te=0).shape == (4,)
  assert found["probed"].blocks == (0, 1, 2)
  revival = found["revival"]
  assert revival.ratio.low > 1 and not any(time.censored for time in revival.reft.values())


def test_ones_own_models_keep_what_a_probe_reads_and_are_revived():
  found = runpy.run_path(str(FOLDER / "own_model.py"))  # what is left of the second, the Flax module
  probed, revival = found["probed"], found["revival"]
  assert probed.of("pt", 1) > probed.guess[0] + 0.2 and len(probed.rows()) == 8
  assert revival.ratio.ratio > 1 and sorted(revival.reft) == [0, 1, 2]
  scores = {row["score"] for row in found["pruned"].rows()}
  assert scores == {"gradient", "random", "random_best"}


def test_a_shipped_model_is_the_one_that_its_rows_were_measured_on(monkeypatch):
  monkeypatch.chdir(FOLDER.parent)
  found = runpy.run_path(str(FOLDER / "shipped_model.py"))
  rows = read_rows(FOLDER.parent / "results" / "tab03" / "max_identifier" / "rows.jsonl")
  final = select(rows, stage="finetune", learning_rate=0.1, c_tr=1.0, seed=0, step=10_000)
  kept = {(row["metric"], row["c_te"]): row["value"] for row in final if "c_te" in row}
  metrics = found["evaluator"].metrics(found["task"])
  measured = {(m.name, dict(m.fields)["c_te"]): float(v) for m, v in zip(metrics, found["accuracies"], strict=True)}
  assert len(kept) == 4 and measured == pytest.approx(kept, abs=0.002)
  for string, answer in zip(found["strings"], found["answers"], strict=True):
    assert answer == sorted(string[1:10])[6]  # the letter of the 7th rank: O_FT, where the correlation holds
