"""The folder of a run: rows of another config stay, and files that are damaged are told in one line."""

import io
import json
import pickle

import numpy as np
import pytest
from etils import epath
from hostile import changed, config_of

from experiments import redraw, results, runner
from experiments.measures import Measured
from finetune_wrappers.reporting.rows import make_row
from finetune_wrappers.types import InputError

FACTS = {
  "backend": "cpu", "commit": "abc", "devices": ["cpu"], "diverged": [], "layouts": [], "trained_at": ["abc"],
  "versions": {"processor": "x", "cores": 2, "python": "3", "jax": "1", "jaxlib": "1", "flax": "1"},
}  # fmt: skip
ARRAYS = {"map": np.arange(6.0).reshape(2, 3)}
ROW = make_row(
  experiment="own", setting="pcfg", task="counting", stage="data", metric="share", step=0, seed=0, value=0.5
)


def written(folder, config, rows=(ROW,), arrays=ARRAYS):
  facts = json.loads(json.dumps({**FACTS, "config": config.to_dict()}))
  results.write(epath.Path(folder), Measured([*rows], dict(arrays)), facts)
  return epath.Path(folder)


CONFIG = config_of("fig05_behaviour")


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"seeds": (0, 1, 2)},
    {"seeds": (5, 1, 0)},
    {"finetune__learning_rates": (*CONFIG.finetune.learning_rates, 0.5)},
    {"finetune__c_trs": (*CONFIG.finetune.c_trs, 0.3125)},
    {"finetune__priors": ("high", *(p for p in CONFIG.finetune.priors if p != "high"))},
    {"measures": (*CONFIG.measures, "pruning")},
    {"lanes_per_program": 3, "layout__devices": 7, "checkpoint_seconds": 1.0, "compilation_cache": "off"},
  ],
)
def test_the_same_config_and_one_that_has_all_its_values_may_write_again(changes, tmp_path):
  folder = written(tmp_path, CONFIG)
  results.check_same(folder, changed(CONFIG, **changes))


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("seeds", (7,)),
    ("seeds", (0,)),
    ("preset", "quick"),
    ("training.steps", 7),
    ("training.eval_steps", (*CONFIG.training.eval_steps, 99)),
    ("probes.drops", (*CONFIG.probes.drops, 99)),
    ("finetune.c_trs", (0.5,)),
    ("reft.threshold", 0.9),
    ("model.width", 64),
    ("report", "probes"),
  ],
)
def test_rows_of_another_config_are_named_and_kept(key, value, tmp_path):
  folder = written(tmp_path / "own", CONFIG)
  before = {path.name: path.read_bytes() for path in folder.iterdir()}
  with pytest.raises(InputError) as caught:
    results.check_same(folder, changed(CONFIG, **{key: value}))
  text = str(caught.value)
  assert text.startswith(f"name: {folder} holds rows of another config, {key} ") and "\n" not in text
  assert "--config.name=OTHER" in text and repr([*value] if isinstance(value, tuple) else value)[:100] in text
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_refuses_before_it_trains(tmp_path, monkeypatch):
  written(tmp_path / CONFIG.name, CONFIG)
  monkeypatch.setattr(runner, "Store", None)
  monkeypatch.setattr("experiments.dry_run.Store", None)
  from experiments import dry_run

  for act in (runner.run, dry_run.describe):
    with pytest.raises(InputError, match=r"\Aname: .*another config, seeds \[0, 1\], not \[7\]"):
      act(changed(CONFIG, seeds=(7,)), str(tmp_path))


def test_rows_of_a_config_that_cannot_be_told_are_kept(tmp_path):
  folder = written(tmp_path, CONFIG)
  results.check_same(tmp_path / "new", CONFIG)
  for text in ("", "{", "[]", "{}", '{"config": 3, "versions": {}}'):
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"\Aname: [^\n]*config.json[^\n]*--config.name=OTHER[^\n]*\Z"):
      results.check_same(folder, CONFIG)
  (folder / "config.json").unlink()
  with pytest.raises(InputError, match="without config.json"):
    results.check_same(folder, CONFIG)
  (folder / "rows.jsonl").unlink()
  results.check_same(folder, CONFIG)


def test_what_is_written_is_read_and_a_second_write_takes_old_arrays_away(tmp_path):
  found = results.read(written(tmp_path, CONFIG))
  assert found.rows == [ROW] and found.checked and found.facts["config"]["name"] == CONFIG.name
  assert found.arrays["map"].tobytes() == ARRAYS["map"].tobytes()
  assert results.read(written(tmp_path, CONFIG, arrays={})).arrays == {}
  assert not (tmp_path / "arrays.npz").exists()


def npz(**arrays):
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  return buffer.getvalue()


BAD = {
  "rows.jsonl": (None, b"", b"{", json.dumps({**ROW, "value": 0.25}).encode(), b"\xff"),
  "arrays.npz": (None, b"", b"PK", pickle.dumps({"a": 1}), npz(map=np.zeros(3)), npz(o=np.array([{}], object))),
  "config.json": (None, b"", b"{", b"[]", b"null", b"3", b"[" * 10_000, b"\xff", pickle.dumps({})),
}


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, several in BAD.items() for data in several])
@pytest.mark.parametrize("first_release", [False, True])
def test_a_damaged_file_is_one_line(name, data, first_release, tmp_path):
  folder = written(tmp_path, CONFIG)
  facts = json.loads((folder / "config.json").read_text())
  if first_release:
    del facts["checksums"]
    (folder / "config.json").write_text(json.dumps(facts))
    if name == "rows.jsonl" and data not in (None, b"{", b"\xff"):
      pytest.skip("nothing says that these are other rows")
  if data is None:
    (folder / name).unlink()
  else:
    (folder / name).write_bytes(data)
  readable = first_release and name == "arrays.npz" and (data is None or b"map.npy" in data)
  if not readable:
    with pytest.raises(InputError, match=rf"\A{folder / name}(:1)?: [^\n]*\Z"):
      runner.report(folder)


@pytest.mark.parametrize("key", ["seeds", "name", "report", "training", "finetune"])
def test_a_config_that_was_changed_is_one_line(key, tmp_path):
  folder = written(tmp_path, CONFIG)
  facts = json.loads((folder / "config.json").read_text())
  for value in (3, None, "x", [{}]):
    facts["config"][key] = value
    (folder / "config.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=rf"\A{folder / 'config.json'}: not as it was written[^\n]*\Z"):
      runner.report(folder)


@pytest.mark.parametrize(("key", "value"), [("report", "x"), ("report", [{}]), ("seeds", 3), ("seeds", None)])
def test_a_config_of_the_first_release_that_no_report_can_read_is_one_line(key, value, tmp_path):
  folder = written(tmp_path, CONFIG)
  facts = json.loads((folder / "config.json").read_text())
  del facts["checksums"]
  facts["config"][key] = value
  (folder / "config.json").write_text(json.dumps(facts))
  with pytest.raises(InputError, match=rf"\A{folder}[^\n]*report[^\n]*\Z"):
    runner.report(folder)


def test_a_mistake_of_a_report_is_no_fault_of_the_files(tmp_path, monkeypatch):
  folder = written(tmp_path, CONFIG)
  monkeypatch.setattr(runner, "registered", lambda *_: {CONFIG.report: type("Own", (), {"make": {}.__getitem__})})
  with pytest.raises(TypeError):
    runner.report(folder)


def test_figures_are_redrawn_from_a_shipped_folder(tmp_path, capsys):
  shipped = epath.Path(__file__).parents[1] / "results" / "fig16"
  for name in ("rows.jsonl", "config.json"):
    (tmp_path / name).write_bytes((shipped / name).read_bytes())
  assert redraw.main([str(tmp_path)]) == 0
  assert "|" in capsys.readouterr().out
  assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
  assert (tmp_path / "summary.md").read_text().startswith("# ")
  for folders, words in (([], "give one"), (["--help"], "give one"), ([str(tmp_path / "no")], "does not exist")):
    assert redraw.main(folders) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and words in said.err


@pytest.mark.parametrize("name", ["damaged", "stages", "cohorts", "locks", "compiled", "Damaged", ".hidden", "a/b", ""])
def test_a_run_cannot_be_named_as_a_folder_of_the_store(name):
  with pytest.raises(InputError, match=r"\Aname: [^\n]*, not stages, cohorts, locks, damaged, compiled, data\Z"):
    runner.plan_of(changed(CONFIG, name=name))
  assert runner.plan_of(changed(CONFIG, name=f"{name.replace('/', '').strip('.')}_1"))
