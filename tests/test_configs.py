"""Every config runs at :smoke, by one command's path, and leaves what the contract says."""

import importlib
import json
import pathlib
import shutil

import pytest
from conftest import drop_programs
from etils import epath

from experiments import runner
from finetune_wrappers.reporting.rows import read_rows, select
from finetune_wrappers.training.stages import root_of
from finetune_wrappers.types import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if not path.stem.endswith(("__init__", "common")))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """Shared, as by a user: the figures share their models."""
  return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def _programs_are_dropped_after_each_config():
  yield
  drop_programs()


def _config(name, preset):
  return importlib.import_module(f"configs.{name}").get_config(preset)


@pytest.mark.parametrize("name", NAMES)
def test_smoke_leaves_rows_summary_and_figure(name, workdir):
  config = _config(name, "smoke")
  folder, short, _ = runner.run(config, str(workdir))
  assert folder == workdir / name
  rows = read_rows(folder / "rows.jsonl")
  assert {row["experiment"] for row in rows} == {name}
  assert {row["task"] for row in rows} == set(config.tasks)
  assert {row["seed"] for row in rows} == set(config.seeds)
  assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
  summary = (folder / "summary.md").read_text()
  assert "commit" in summary and "seeds" in summary
  assert "the preset `smoke`" in short and "the preset `smoke`" in summary and "| yes |" not in short + summary
  told = json.loads((folder / "config.json").read_text())
  assert told["config"]["preset"] == "smoke"
  precision = {"tracr": "highest", "pcfg": "default", "stories": "default"}[config.setting]
  assert told["precisions"] == ([precision] if told["layouts"] else [])


def test_what_a_preset_that_shows_nothing_leaves_says_so_once_for_all_configs(workdir, tmp_path):
  folder, *_ = runner.run(_config("fig27_reft", "smoke"), str(workdir))
  copy = epath.Path(shutil.copytree(folder, tmp_path / "copy"))
  facts = json.loads((copy / "config.json").read_text())
  facts["config"]["preset"] = "quick"
  del facts["checksums"]  # of a config.json that nobody edited
  (copy / "config.json").write_text(json.dumps(facts))
  short = runner.report(copy)
  assert "sooner than" in short and "Nothing: the preset" not in short + (copy / "summary.md").read_text()
  assert (copy / "figure.png").read_bytes() != (folder / "figure.png").read_bytes()  # the mark of test_plots


def test_a_second_run_trains_nothing_and_writes_the_same_rows(workdir, monkeypatch):
  config = _config("fig27_reft", "smoke")
  folder, *_ = runner.run(config, str(workdir))
  before = (folder / "rows.jsonl").read_bytes()
  monkeypatch.setattr("finetune_wrappers.training.loop.Trainer._train", None)
  monkeypatch.setattr("finetune_wrappers.training.loop.Trainer._make_root", None)
  runner.run(config, str(workdir))
  assert (folder / "rows.jsonl").read_bytes() == before


def test_damaged_stages_are_trained_again_to_the_same_rows_and_kept_aside(workdir, capsys):
  config = _config("fig27_reft", "smoke")
  folder, *_ = runner.run(config, str(workdir))
  before = (folder / "rows.jsonl").read_bytes()
  trained = next(stage for stage in runner.plan_of(config).stages if stage.kind == "reft")
  damaged = [trained.key, root_of(trained).key]
  for key in damaged:
    whole = (workdir / "stages" / key / "stage.json").read_text()
    (workdir / "stages" / key / "stage.json").write_text(whole[: len(whole) // 2])
  runner.run(config, str(workdir))
  assert (folder / "rows.jsonl").read_bytes() == before
  assert sorted(path.name.partition("-")[0] for path in (workdir / "damaged").iterdir()) == sorted(damaged)
  said = capsys.readouterr().err
  assert all(f"{key} is truncated" in said for key in damaged)


def test_many_damaged_stages_are_left_where_they_are(tmp_path):
  config = _config("tab03_behaviour", "smoke")
  runner.run(config, str(tmp_path))
  descriptions = list((tmp_path / "stages").glob("*/stage.json"))
  for path in descriptions:
    path.write_text("{")
  with pytest.raises(InputError, match=f"is truncated .*, and {len(descriptions) - 1} others are; look at the disk"):
    runner.run(config, str(tmp_path))
  assert len(list((tmp_path / "stages").glob("*/stage.json"))) == len(descriptions)
  assert not (tmp_path / "damaged").exists()


def test_accuracies_stand_beside_guess_baselines_and_random_pruning(workdir):
  rows = [
    row
    for name in ("fig27_reft", "fig57_prune_weights")
    for row in read_rows(runner.run(_config(name, "smoke"), str(workdir)).folder / "rows.jsonl")
  ]
  for stage in ("data", "prune"):
    baselines = select(rows, metric="guess_baseline", stage=stage)
    assert {(row["operand"], row["c_te"]) for row in baselines} == {(o, c) for o in ("pt", "ft") for c in (0, 1)}
  assert select(rows, stage="prune", score="random") and select(rows, stage="prune", score="random_best")
  assert select(rows, stage="scratch_ft", metric="acc_pt")


@pytest.mark.parametrize("preset", ["smoke", "quick", "paper"])
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_exists_and_its_docstring_says_how_to_run_it(name, preset):
  config = _config(name, preset)
  text = importlib.import_module(f"configs.{name}").__doc__
  assert config.is_locked and config.name == name and config.preset == preset
  assert f"--config=configs/{name}.py:quick" in text
  assert all(word in text for word in ("smoke", "quick", "paper"))


def test_paper_preset_has_the_papers_numbers():
  config = _config("tab03_behaviour", "paper")
  assert (config.training.steps, config.training.batch_size, config.training.warmup_steps) == (10_000, 96, 2_000)
  assert len(config.finetune.learning_rates) * len(config.finetune.c_trs) == 28
  assert config.training.final_fraction == 0.01
