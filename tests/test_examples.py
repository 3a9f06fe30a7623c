"""The examples run as they stand and show what they say."""

import pathlib
import runpy

import pytest

import finetune_wrappers as fw
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
  by_score, random = (found["pruned"].curve("acc_pt", score, c_te=0) for score in ("gradient", "random"))
  assert by_score[0] == pytest.approx(random[0]) and by_score[1:].max() < by_score[0], "nothing is lifted"
  assert abs(random - random[0]).max() < 0.02
  probed = found["probed"]
  assert probed.blocks == (0, 1, 2)
  assert probed.of("pt", 2) > probed.negative.of("pt", 2) + 0.1, "but it is read"
  revival = found["revival"]
  assert revival.ratio.low > 1 and not any(time.censored for time in revival.reft.values())


def test_ones_own_models_are_read_like_their_negatives_lifted_more_than_by_random_pruning_and_revived(monkeypatch):
  found = []

  def recorded(procedure):
    return lambda *args, **more: found.append((args[0], procedure(*args, **more))) or found[-1][1]

  for name in ("probe", "prune", "revive"):
    monkeypatch.setattr(fw, name, recorded(getattr(fw, name)), raising=False)
  runpy.run_path(str(FOLDER / "own_model.py"))
  assert [type(model) for model, _ in found] == [fw.FunctionModel] * 3 + [fw.FlaxModel] * 3
  results = [result for _, result in found]
  for probed, pruned, revival in (results[:3], results[3:]):
    own, negative = probed.of("pt", 1), probed.negative.of("pt", 1)
    assert min(own, negative) > 0.9 > probed.guess[0] + 0.5 and probed.saturated("pt", 1), "both keep all counts"
    by_score, random = (pruned.curve("acc_pt", score, c_te=0) for score in ("gradient", "random"))
    assert by_score[0] == random[0] and by_score.max() > random.max() + 0.02
    assert revival.ratio.low > 1 and sorted(revival.reft) == sorted(revival.control) == [0, 1, 2]


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
