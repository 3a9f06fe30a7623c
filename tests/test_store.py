"""The stage store: exact round trips, and what broken folders, full disks, kills and rival processes do to it."""

import errno
import os
import pathlib
import pickle
import resource
import shutil
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.training.disk import checksum, writing
from finetune_wrappers.training.stages import CompileStage
from finetune_wrappers.training.store import Store
from finetune_wrappers.types import InputError

FACTS = {"device": "cpu", "labels": ["a", "b"], "layout": {"devices": 1, "inner": "map"}, "rate": 0.5, "none": None}

_WORKER = """
import sys, numpy as np
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.training.stages import CompileStage
from finetune_wrappers.training.store import Store
stage, store = CompileStage(task=CounterTask(), operand="pt"), Store(sys.argv[1])
"""


def stage_of(exactness=0):
  return CompileStage(task=CounterTask(), operand="pt", mlp_exactness=exactness)


def arrays_of(seed=0):
  generator = np.random.default_rng(seed)
  return {
    "params": {
      "blocks_0": {"kernel": generator.normal(size=(5, 3)).astype(np.float32), "bias": np.float32([-0.0, 1e-45, 3e38])},
      "table": generator.integers(0, 2**32, (2, 1, 4), dtype=np.uint32),
      "odd": np.float32([np.nan, np.inf, -np.inf]),
    },
    "mixed": [np.array([True, False]), np.arange(3), np.int32(-1)],
    "big": generator.normal(size=2000),
  }


def same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
    assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), jax.tree_util.keystr(path)


@pytest.fixture
def store(tmp_path):
  """A store with two stages."""
  store = Store(tmp_path / "work")
  store.save(stage_of(), arrays_of(), FACTS)
  store.save(stage_of(1), arrays_of(1), {})
  return store


def folder_of(store, stage):
  return pathlib.Path(store.root) / "stages" / stage.key


def payload(folder):
  """The file that holds the bytes of the arrays: far the largest."""
  return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def visible(store):
  return {path.name for path in (store.root / "stages").iterdir() if not path.name.startswith(".")}


def test_what_is_loaded_is_what_was_saved_to_the_bit(store):
  arrays, facts = Store(store.root).load(stage_of())
  same(arrays, arrays_of())
  assert facts == FACTS == store.facts(stage_of())
  assert {type(leaf) for leaf in jax.tree.leaves(arrays)} == {np.ndarray}
  store.save(stage_of(2), {"of the device": jnp.arange(4.0)}, {})
  same(store.load(stage_of(2))[0], {"of the device": np.arange(4, dtype=np.float32)})


def test_a_stage_is_there_only_once_it_is_complete(store, monkeypatch):
  seen, save = [], ocp.save

  def spy(*args):
    save(*args)
    seen.append((store.has(stage_of(2)), stage_of(2).key in visible(store)))

  monkeypatch.setattr(ocp, "save", spy)
  store.save(stage_of(2), arrays_of(), {})
  assert seen == [(False, False)] and store.has(stage_of(2))


@pytest.mark.parametrize("name", ["runs[1]", "runs[0-4]", "a[/b]", "back\\slash"])
def test_a_workdir_that_orbax_cannot_read_back_is_refused_before_anything_is_made(tmp_path, name):
  with pytest.raises(InputError, match=r"\Aworkdir: [^\n]* is not allowed; use a path without \[\.\.\.\] or [^\n]*\Z"):
    Store(tmp_path / name / "inside")
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a[b", "a]b[", "a*b", "a?b", "{a,b}", "a b", "100%", "a#b", "\u00e9", "a'b"])
def test_other_strange_workdirs_keep_what_they_are_given(tmp_path, name):
  store = Store(tmp_path / name)
  store.save(stage_of(), arrays_of(), FACTS)
  same(store.load(stage_of())[0], arrays_of())


@pytest.mark.parametrize("damage", ["bits", "file"])
def test_a_stage_that_does_not_read_back_is_not_finished(store, monkeypatch, damage):
  save = ocp.save

  def save_badly(folder, arrays):
    save(folder, {**arrays, "big": arrays["big"] + 1e-9} if damage == "bits" else arrays)
    if damage == "file":
      payload(pathlib.Path(folder)).write_bytes(b"")

  with monkeypatch.context() as patched, pytest.raises(InputError, match=r"\Aworkdir: [^\n]* reads back as [^\n]*\Z"):
    patched.setattr(ocp, "save", save_badly)
    store.save(stage_of(2), arrays_of(), FACTS)
  assert not store.has(stage_of(2)) and not [path for path in (store.root / "stages").iterdir() if path.name[0] == "."]
  store.save(stage_of(2), arrays_of(), FACTS)
  same(store.load(stage_of(2))[0], arrays_of())


def test_a_workdir_that_cannot_be_made_is_one_line():
  with pytest.raises(InputError, match=r"\Aworkdir: /dev/null/runs cannot be written[^\n]+\Z"):
    Store("/dev/null/runs")


def nothing_was_lost(store, left):
  assert visible(store) == left
  same(store.load(stage_of())[0], arrays_of())
  same(store.load(stage_of(1))[0], arrays_of(1))


@pytest.mark.parametrize(
  ("error", "reason"),
  [
    (OSError(errno.ENOSPC, "No space left on device"), "is full"),
    (ValueError("RESOURCE_EXHAUSTED: Failed to write 9 bytes: No space [os_error_code='28'] [x='y']"), "is full"),
    (OSError(errno.EIO, "Input/output error"), "Input/output error"),
  ],
)
def test_a_disk_that_fails_is_one_line_and_costs_nothing(store, monkeypatch, error, reason):
  def fail(path, _):
    path.mkdir()
    raise error

  left = visible(store)
  with monkeypatch.context() as patched:
    patched.setattr(ocp, "save", fail)
    with pytest.raises(InputError, match=rf"\Aworkdir: {store.root} [^\n]*{reason}[^\n]*\Z"):
      store.save(stage_of(2), arrays_of(), {})
  nothing_was_lost(store, left)
  assert not store.has(stage_of(2))
  store.save(stage_of(2), arrays_of(2), {})
  same(store.load(stage_of(2))[0], arrays_of(2))


def test_what_orbax_makes_of_a_real_failure_to_write_is_one_line(store):
  left, limits = visible(store), resource.getrlimit(resource.RLIMIT_FSIZE)
  noise = {"noise": np.random.default_rng(0).normal(size=100_000)}
  resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
  try:
    with pytest.raises(InputError, match=r"\Aworkdir: [^\n]+File too large[^\n]+\Z"):
      store.save(stage_of(2), noise, {})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  nothing_was_lost(store, left)


def test_an_error_that_is_not_the_disks_stays_what_it_is(store):
  with pytest.raises(ValueError, match=r"\Aa bug\Z") as found, writing(store.root):
    raise ValueError("a bug")
  assert not isinstance(found.value, InputError)
  with pytest.raises(FileNotFoundError), store.lock(["cohort"]):
    os.stat("/nowhere/at/all")


def test_of_two_processes_that_save_one_stage_the_first_wins(store, monkeypatch):
  save = ocp.save

  def overtaken(*args):
    save(*args)
    script = f'{_WORKER}\nstore.save(stage, {{"x": np.arange(3)}}, {{"by": "the other"}})'
    subprocess.run([sys.executable, "-c", script, store.root], check=True)

  shutil.rmtree(folder_of(store, stage_of()))
  monkeypatch.setattr(ocp, "save", overtaken)
  store.save(stage_of(), arrays_of(), {"by": "us"})
  arrays, facts = store.load(stage_of())
  same(arrays, {"x": np.arange(3)})
  assert facts == {"by": "the other"}
  assert {path.name for path in (store.root / "stages").iterdir()} == {stage_of().key, stage_of(1).key}


def test_a_second_process_waits_for_the_lock_until_the_first_is_killed(store):
  script = f'{_WORKER}\nwith store.lock(["cohort"]):\n  print("held", flush=True)\n  sys.stdin.read()'
  pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
  got = threading.Event()

  def wait():
    while not got.wait(0.05):
      with store.lock(["cohort"]) as mine:
        if mine:
          got.set()

  with subprocess.Popen([sys.executable, "-c", script, store.root], **pipes) as holder:
    assert holder.stdout.readline() == "held\n"
    with store.lock(["another", "cohort"]) as both, store.lock(["another"]) as free:
      assert free and not both, "what was held when one key was taken is free again"
    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not got.wait(0.5)
    holder.kill()
    waiting.join(30)
  assert got.is_set()


def test_small_values_are_remembered(store):
  assert store.recall("layout") is None
  store.remember("layout", {"lanes": 4})
  assert Store(store.root).recall("layout") == {"lanes": 4}
  (store.root / "locks" / "layout.json").write_text('{"lan')
  assert store.recall("layout") is None


def test_loading_runs_no_code_of_the_folder(store, monkeypatch):
  assert not [
    path for path in pathlib.Path(store.root).rglob("*") if path.suffix in (".pkl", ".pickle", ".py", ".npy", ".npz")
  ]
  for name in ("load", "loads", "Unpickler"):
    monkeypatch.delattr(pickle, name)
  same(store.load(stage_of())[0], arrays_of())


def test_the_checksum_tells_bytes_types_shapes_and_names_apart():
  zeros = np.zeros((2, 3), np.float32)
  different = [zeros, zeros.reshape(3, 2), zeros.astype(np.int32), -zeros, zeros + np.float32(1e-45)]
  assert len({checksum({"a": array}) for array in different} | {checksum({"b": zeros})}) == 6
  assert checksum({"a": jnp.asarray(zeros.T).T}) == checksum({"a": zeros})
