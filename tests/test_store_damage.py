"""The stage store: what is damaged is told from what cannot be read, and set aside."""

import errno
import itertools
import os
import pathlib
import shutil

import pytest
from etils import epath
from orbax.checkpoint import v1 as ocp
from test_store import FACTS, arrays_of, folder_of, payload, same, stage_of, store

from finetune_wrappers.training.store import DamagedStage, Store
from finetune_wrappers.types import InputError

__all__ = ["store"]  # the fixture


def is_refused_and_the_other_loads(store, stage, call):
  with pytest.raises(InputError, match=r"\Aworkdir: [^\n]+\Z") as refusal:
    call(stage)
  assert str(folder_of(store, stage)) in str(refusal.value)
  same(store.load(stage_of(1))[0], arrays_of(1))


def cut(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
  content = bytearray(path.read_bytes())
  if content:
    content[len(content) // 2] ^= 0x10
  path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [cut, flip])
def test_damaged_arrays_are_refused(store, damage):
  damage(payload(folder_of(store, stage_of()) / "arrays"))
  is_refused_and_the_other_loads(store, stage_of(), store.load)


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.unlink()], ids=["cut", "flip", "unlink"])
def test_no_damage_to_any_file_passes_for_other_arrays(store, damage, tmp_path):
  folder = folder_of(store, stage_of())
  shutil.copytree(folder, tmp_path / "whole")
  for path in sorted(path for path in folder.rglob("*") if path.is_file()):
    damage(path)
    try:
      same(store.load(stage_of())[0], arrays_of())
    except InputError as refusal:
      assert str(folder) in str(refusal) and "\n" not in str(refusal)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "whole", folder)


def test_no_flipped_bit_of_the_description_passes_for_other_facts(store):
  path = folder_of(store, stage_of()) / "stage.json"
  whole = path.read_bytes()
  refused = 0
  for place in range(len(whole)):
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    try:
      assert store.facts(stage_of()) == FACTS
    except InputError:
      refused += 1
  assert refused > len(whole) // 2


@pytest.mark.parametrize("text", ['{"stage": {"class": "Comp', "", "[]", "{}", "\x00"])
def test_a_broken_or_missing_description_is_refused(store, text):
  (folder_of(store, stage_of()) / "stage.json").write_text(text)
  for stage in (stage_of(), stage_of(9)):
    is_refused_and_the_other_loads(store, stage, store.load)
    is_refused_and_the_other_loads(store, stage, store.facts)


def test_what_has_no_description_makes_way_for_the_stage_and_is_kept(store):
  folder = folder_of(store, stage_of())
  (folder / "stage.json").unlink()
  assert not store.has(stage_of())
  store.save(stage_of(), arrays_of(), FACTS)
  same(store.load(stage_of())[0], arrays_of())
  (moved,) = (pathlib.Path(store.root) / "damaged").iterdir()
  assert (moved / "arrays").exists()
  assert not list(folder.parent.glob(".*"))


def test_a_save_that_fails_leaves_nothing(store, monkeypatch):
  def fail(path, _):
    path.mkdir()
    raise OSError(errno.ENOSPC, "No space left on device")

  before = sorted((pathlib.Path(store.root) / "stages").iterdir())
  monkeypatch.setattr(ocp, "save", fail)
  with pytest.raises(InputError, match="is full"):
    store.save(stage_of(7), arrays_of(), FACTS)
  assert sorted((pathlib.Path(store.root) / "stages").iterdir()) == before


def test_what_is_remembered_is_the_same_or_nothing_whatever_bit_flips(store):
  value = {"layout": {"devices": 2, "inner": "vmap"}, "lanes": 4, "lane_steps_per_second": {"1xmap": 10.5}}
  store.remember("layout", value)
  path = pathlib.Path(store.root) / "locks" / "layout.json"
  whole = path.read_bytes()
  for place, bit in itertools.product(range(len(whole)), range(8)):
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    assert store.recall("layout") in (value, None)
  path.write_bytes(whole)
  assert store.recall("layout") == value


def test_a_damaged_stage_is_set_aside_whole(store):
  folder = folder_of(store, stage_of())
  cut(payload(folder / "arrays"))
  contents = sorted((path.relative_to(folder), path.read_bytes()) for path in folder.rglob("*") if path.is_file())
  with pytest.raises(DamagedStage):
    store.load(stage_of())
  moved = pathlib.Path(store.set_aside(stage_of()))
  assert list((pathlib.Path(store.root) / "damaged").iterdir()) == [moved]
  assert sorted((path.relative_to(moved), path.read_bytes()) for path in moved.rglob("*") if path.is_file()) == contents
  assert not store.has(stage_of()) and store.has(stage_of(1))
  store.save(stage_of(), arrays_of(), FACTS)
  same(store.load(stage_of())[0], arrays_of())


def test_only_what_is_damaged_and_free_is_set_aside(store):
  assert store.set_aside(stage_of()) is None and store.set_aside(stage_of(2)) is None
  cut(payload(folder_of(store, stage_of()) / "arrays"))
  with Store(store.root).lock([stage_of().key]):
    assert store.set_aside(stage_of()) is None
  assert not (store.root / "damaged").exists()


@pytest.mark.parametrize(
  "error",
  [OSError(errno.EIO, "bad"), OSError("no number"), ValueError("NOT_OK [os_error_code='5']"), MemoryError()],
)
def test_a_disk_that_does_not_answer_or_too_little_memory_is_no_damage(store, error, monkeypatch):
  def fail(*_):
    raise error

  monkeypatch.setattr(ocp, "load", fail)
  with pytest.raises((InputError, MemoryError)) as raised:
    store.load(stage_of())
  assert not isinstance(raised.value, DamagedStage)


def test_a_file_that_may_not_be_read_is_no_damage_though_orbax_takes_it_for_one(store, monkeypatch):
  secret, read = payload(folder_of(store, stage_of()) / "arrays"), epath.Path.read_bytes

  def refuse(path):
    if os.fspath(path) == os.fspath(secret):
      raise PermissionError(errno.EACCES, "no")
    return read(path)

  monkeypatch.setattr(type(store.root), "read_bytes", refuse)
  monkeypatch.setattr(ocp, "load", lambda *_: (_ for _ in ()).throw(RuntimeError("no layout")))
  with pytest.raises(InputError, match="cannot be read .PermissionError"):
    store.load(stage_of())


@pytest.mark.parametrize("part", ["", "arrays"])
def test_another_stages_folder_or_arrays_are_refused(store, part):
  shutil.rmtree(folder_of(store, stage_of()) / part)
  shutil.copytree(folder_of(store, stage_of(1)) / part, folder_of(store, stage_of()) / part)
  for call in (store.load,) if part else (store.load, store.facts):
    is_refused_and_the_other_loads(store, stage_of(), call)
