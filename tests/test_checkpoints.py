"""Checkpoints of unfinished lanes: the newest whole one of each, whatever ran beside it."""

import errno
import json
import pathlib
import shutil

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from test_store_damage import cut, flip, payload, same

from finetune_wrappers.training.checkpoints import Checkpoints
from finetune_wrappers.training.provenance import parts_with
from finetune_wrappers.training.store import Store
from finetune_wrappers.types import InputError


@pytest.fixture
def kept(tmp_path):
  return Checkpoints(Store(tmp_path).root)


def of_lanes(step, *lanes):
  """What lanes have at that step; each its own numbers."""
  return {"state": [np.array([[step, lane] * 150 for lane in lanes], np.float32), np.array(lanes)]}


def of_lane(step, lane):
  return {"state": [np.array([step, lane] * 150, np.float32), np.array(lane)]}


def folders(kept):
  return sorted(path for path in pathlib.Path(kept._root, "cohorts").glob("*/*") if path.is_dir())


def test_a_lane_has_its_newest_checkpoint_and_all_but_the_one_before_are_removed(kept):
  for step in (8, 9, 10):
    kept.save(["a", "b"], step, of_lanes(step, 1, 2), {})
  assert [path.name for path in folders(kept)] == ["10", "9"]
  found = Checkpoints(kept._root).load(["b", "c"])
  assert list(found) == ["b"] and found["b"][0] == 10
  same(found["b"][1], of_lane(10, 2))


def test_each_lane_takes_the_newest_whatever_ran_beside_it(kept):
  kept.save(["a", "b", "c"], 4, of_lanes(4, 1, 2, 3), {})
  kept.save(["b"], 10, of_lanes(10, 2), {})
  kept.save(["d", "c"], 5, of_lanes(5, 4, 3), {})
  assert kept.steps() == {"a": 4, "b": 10, "c": 5, "d": 5}
  found = kept.load(["a", "b", "c", "d"])
  assert {lane: step for lane, (step, *_) in found.items()} == kept.steps()
  for lane, number in zip("abcd", (1, 2, 3, 4), strict=True):
    same(found[lane][1], of_lane(found[lane][0], number))


def test_what_every_lane_is_done_with_is_removed(kept):
  kept.save(["a", "b"], 4, of_lanes(4, 1, 2), {})
  kept.save(["b"], 10, of_lanes(10, 2), {})
  kept.tidy({"b"}.__contains__)
  assert kept.steps() == {"a": 4, "b": 4}
  kept.tidy({"a", "b"}.__contains__)
  assert list((kept._root / "cohorts").iterdir()) == []


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_one_falls_back_to_the_one_before_and_says_so(kept, damage, caplog):
  for step in (8, 9, 10):
    kept.save(["a"], step, of_lanes(step, 1), {})
  assert kept.load(["a"])["a"][0] == 10
  nine, ten = sorted(folders(kept), key=lambda path: int(path.name))
  damage(payload(ten))
  step, arrays, _ = kept.load(["a"])["a"]
  assert step == 9
  same(arrays, of_lane(9, 1))
  assert caplog.text.count(f"checkpoint {ten} is truncated or foreign") == 1 and "9 is" not in caplog.text
  damage(payload(nine))
  assert kept.load(["a"]) == {}


@pytest.mark.parametrize("error", [OSError(errno.EIO, "bad"), PermissionError(errno.EACCES, "no"), MemoryError()])
def test_one_that_cannot_be_read_now_is_not_taken_for_damaged(kept, error, monkeypatch):
  kept.save(["a"], 9, of_lanes(9, 1), {})

  def fail(*_):
    raise error

  with monkeypatch.context() as patched, pytest.raises((InputError, MemoryError)):
    patched.setattr(ocp, "load", fail)
    kept.load(["a"])
  assert kept.load(["a"])["a"][0] == 9


def test_folders_that_are_no_checkpoints_are_left_out(kept):
  kept.save(["a"], 9, of_lanes(9, 1), {})
  (folders(kept)[0].parent / "\u00b2").mkdir()
  assert kept.steps() == {"a": 9}
  shutil.rmtree(kept._root / "cohorts")
  assert kept.steps() == {} and kept.load(["a"]) == {}


@pytest.mark.parametrize("text", ['["b", "a"]', '["z"]', '["a"', "7", ""])
def test_lanes_of_another_order_or_name_are_not_taken(kept, text):
  kept.save(["a", "b"], 3, of_lanes(3, 1, 2), {})
  (folders(kept)[0].parent / "lanes.json").write_text(text)
  assert kept.load(["a", "b", "z"]) == {}


def test_a_full_disk_is_one_line_and_costs_nothing(kept, monkeypatch):
  def fail(path, _):
    path.mkdir()
    raise OSError(errno.ENOSPC, "No space left on device")

  kept.save(["a"], 3, of_lanes(3, 1), {})
  with monkeypatch.context() as patched, pytest.raises(InputError, match=r"\Aworkdir: [^\n]* is full[^\n]*\Z"):
    patched.setattr(ocp, "save", fail)
    kept.save(["a"], 6, of_lanes(6, 1), {})
  assert kept.load(["a"])["a"][0] == 3
  kept.save(["a"], 6, of_lanes(6, 1), {})
  assert kept.load(["a"])["a"][0] == 6
  assert json.loads((folders(kept)[0].parent / "lanes.json").read_text()) == ["a"]


PARTS = {
  lane: [{"from": 0, "layout": {"devices": 1}}, {"from": 4, "layout": {"devices": n}}] for n, lane in enumerate("ab")
}


def test_what_trained_a_lane_goes_with_its_checkpoint(kept):
  kept.save(["a", "b"], 5, of_lanes(5, 1, 2), PARTS)
  kept.save(["b"], 6, of_lanes(6, 2), {"b": [*PARTS["b"], {"from": 5}]})
  found = kept.load(["a", "b"])
  assert found["a"].parts == PARTS["a"] and found["b"].parts == [*PARTS["b"], {"from": 5}]


@pytest.mark.parametrize("text", [None, "", "[]", "7", '{"a": 7}', '{"a": [7]}', '{"a": [{}]}'])
def test_a_checkpoint_is_whole_without_what_trained_it(kept, text):
  kept.save(["a"], 5, of_lanes(5, 1), PARTS)
  path = folders(kept)[0].parent / "parts.json"
  path.write_text(text) if text is not None else path.unlink()
  assert kept.load(["a"])["a"][::2] == (5, [])


def test_a_part_is_told_once_and_those_of_a_lost_checkpoint_are_not():
  one, two = {"layout": {"devices": 1}, "commit": "c"}, {"layout": {"devices": 2}, "commit": "c"}
  first = parts_with([], 0, one)
  assert first == [{"from": 0, **one}] == parts_with(first, 7, one)
  both = parts_with(first, 7, two)
  assert both == [{"from": 0, **one}, {"from": 7, **two}]
  assert parts_with(both, 7, one) == parts_with(both, 3, one) == first
  assert parts_with([], 5, two) == [{"from": 5, **two}]  # what was before is not known
