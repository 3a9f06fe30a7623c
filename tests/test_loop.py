"""The trainer on a model of 200 weights: order, resuming to the bit after interrupts and kills, rivals, layouts."""

import dataclasses
import itertools
import os
import re
import signal
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from finetune_wrappers.models import tracr_port, tracr_stage
from finetune_wrappers.models.tracr_model import TracrTransformer
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.training import calibration, cohort_run
from finetune_wrappers.training.cohort import Cohort
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.failures import Interrupted
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.loop import Trainer, missing_stages
from finetune_wrappers.training.objectives import Answers
from finetune_wrappers.training.optim import SGD
from finetune_wrappers.training.stages import CompileStage, TrainStage
from finetune_wrappers.training.store import Store

TASK = CounterTask(num_letters=5, vocab_size=3, num_pads=1)
MODEL = TracrTransformer(
  vocab_size=5, max_positions=7, width=8, num_layers=1, num_heads=1, key_size=2, mlp_hidden_size=4,
  answer_channels=tuple(range(7)),
)  # fmt: skip
OPTIMIZER = SGD(
  steps=8, batch_size=4, warmup_steps=2, final_fraction=0.1, momentum=0.9, clip_norm=0.0, microbatches=1,
  eval_steps=(0, 1, 4, 6, 8),
)  # fmt: skip
ROOT = CompileStage(task=TASK, operand="pt")
FINETUNE = TrainStage(
  kind="finetune", parent=ROOT, task=TASK, objective=Answers(target="ft", c_tr=1.0), optimizer=OPTIMIZER,
  evaluator=Accuracies(16), learning_rate=0.01, noise_std=0.1, seed=0,
)  # fmt: skip
OTHER = dataclasses.replace(FINETUNE, learning_rate=0.001)
REFT = dataclasses.replace(
  FINETUNE, kind="reft", parent=FINETUNE, objective=Answers(target="pt", c_tr=0.0), learning_rate=0.005, noise_std=0.0
)
STILL = dataclasses.replace(REFT, parent=OTHER, learning_rate=1e-30)
WANTED = [STILL, REFT]  # as two programs of two lanes: both fine-tunings, then both reFTs
ALL = [ROOT, OTHER, FINETUNE, STILL, REFT]
STEPS = 2 * OPTIMIZER.steps  # of programs; twice as many of lanes

# For a process of its own: [workdir, lane-steps after which it kills itself].
_WORKER = """
import os, signal, sys, time
import test_loop
from finetune_wrappers.training import cohort_run
from finetune_wrappers.training.store import Store

trained, advance = [], cohort_run.CohortRun._advance

def count(self, stop):
  trained.append(len(self.lanes) * (stop - self.position))
  advance(self, stop)

def progress(done, total, text):
  time.sleep(0.05)
  if done == int(sys.argv[2]):
    os.kill(os.getpid(), signal.SIGKILL)

cohort_run.CohortRun._advance = count
test_loop.trainer(Store(sys.argv[1]), progress=progress).run(test_loop.WANTED)
print(sum(trained))
"""


def build(stage):
  shapes = jax.eval_shape(MODEL.init, jax.random.key(0), np.zeros((1, TASK.length), int))["params"]
  generator = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)
  return {"params": params}, {"model": tracr_port.describe(MODEL)}


def trainer(store, **options):
  given = {"lanes_per_program": 2, "checkpoint_seconds": 0.0, **options}
  given["layout"] = options["layout"] if "layout" in options else Layout(1, "map")
  return Trainer(store, build=build, model_of=tracr_stage.restore, **given)


def spy_on_advance(patch):
  """The list that every (start, stop) trained from now on is put into."""
  spans, advance = [], Cohort.advance

  def spy(self, state, lane, *, start, stop, since):
    spans.append((start, stop))
    return advance(self, state, lane, start=start, stop=stop, since=since)

  patch(Cohort, "advance", spy)
  return spans


def start_worker(workdir, die_at=-1):
  environment = {
    **os.environ,
    "PYTHONPATH": os.path.dirname(__file__),
    "JAX_NUM_CPU_DEVICES": str(jax.local_device_count()),
  }
  command = [sys.executable, "-c", _WORKER, str(workdir), str(die_at)]
  return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def whole_run(folder):
  """What one run without interruption leaves, and what it did."""
  store, saved, reports = Store(folder), [], []
  save = store.save
  store.save = lambda stage, *rest: (saved.append(stage), save(stage, *rest))
  trainer(store, progress=lambda *report: reports.append(report)).run(WANTED)
  return types.SimpleNamespace(store=store, saved=saved, reports=reports)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
  return whole_run(tmp_path_factory.mktemp("single"))


def same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
    assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), jax.tree_util.keystr(path)


def same_stages(store, expected, stages=ALL):
  for stage in stages:
    same(store.load(stage)[0], expected.load(stage)[0])


def test_parents_are_trained_first_and_each_stage_once(single):
  assert sorted(stage.key for stage in single.saved) == sorted(stage.key for stage in ALL)
  for parent, child in ((ROOT, OTHER), (ROOT, FINETUNE), (OTHER, STILL), (FINETUNE, REFT)):
    assert single.saved.index(parent) < single.saved.index(child)
  assert missing_stages(single.store, WANTED) == []
  done, total, _ = zip(*single.reports, strict=True)
  assert list(done) == sorted(done) and done[-1] == 2 * STEPS and set(total) == {2 * STEPS}


def test_what_is_missing_is_listed_parents_first(tmp_path):
  store = Store(tmp_path)
  assert missing_stages(store, [REFT, OTHER, REFT]) == [ROOT, FINETUNE, REFT, OTHER]
  store.save(ROOT, *build(ROOT))
  assert missing_stages(store, [REFT]) == [FINETUNE, REFT]


def test_a_stage_has_curves_and_weights_that_moved(single):
  arrays, facts = single.store.load(FINETUNE)
  assert {name: array.shape for name, array in arrays.items() if name != "params"} == {
    "metrics": (5, 4), "losses": (5,), "steps": (5,), "diverged_step": ()
  }  # fmt: skip
  assert arrays["steps"].tolist() == [0, 1, 4, 6, 8] and arrays["diverged_step"] == -1
  assert np.isfinite(arrays["losses"]).all() and ((arrays["metrics"] >= 0) & (arrays["metrics"] <= 1)).all()
  root = single.store.load(ROOT)[0]["params"]
  assert jax.tree.structure(arrays["params"]) == jax.tree.structure(root)
  assert all((a != b).any() for a, b in zip(jax.tree.leaves(arrays["params"]), jax.tree.leaves(root), strict=True))
  assert facts["layout"] == {"devices": 1, "inner": "map"} and facts["jax"] == jax.__version__


def test_a_child_starts_from_its_parents_last_weights(single):
  parent, still = single.store.load(OTHER)[0], single.store.load(STILL)[0]
  same(still["params"], parent["params"])
  np.testing.assert_array_equal(still["metrics"], np.tile(parent["metrics"][-1], (5, 1)))
  assert np.ptp(still["losses"][1:]) > 0


def test_a_second_run_trains_nothing(single, monkeypatch):
  spans = spy_on_advance(monkeypatch.setattr)
  reports = []
  trainer(single.store, progress=lambda *report: reports.append(report)).run([*WANTED, ROOT])
  assert spans == [] and reports == []


@pytest.mark.parametrize(("stopped_at", "finished", "checkpoint"), [(8, 0, 1), (28, 8, 4)])
def test_an_interrupted_run_goes_on_to_the_same_bits(single, tmp_path, monkeypatch, stopped_at, finished, checkpoint):
  def interrupt(done, total, text):
    if done == stopped_at:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    trainer(Store(tmp_path), progress=interrupt).run(WANTED)
  spans, reports = spy_on_advance(monkeypatch.setattr), []
  trainer(Store(tmp_path), progress=lambda *report: reports.append(report)).run(WANTED)
  assert spans[0][0] == checkpoint
  assert sum(stop - start for start, stop in spans) == STEPS - finished - checkpoint
  assert reports[-1][:2] == (2 * (STEPS - finished),) * 2
  same_stages(Store(tmp_path), single.store)
  assert list((tmp_path / "cohorts").iterdir()) == []


def test_a_run_that_is_told_to_stop_saves_and_goes_on_to_the_same_bits(single, tmp_path, monkeypatch):
  """Between two evaluations too, and without waiting for the time of a checkpoint: no step is trained twice."""
  monkeypatch.setattr(cohort_run, "_PART_SECONDS", 0)  # parts of one step each, however fast the machine is
  spans = spy_on_advance(monkeypatch.setattr)
  stops = 0
  for patience in itertools.cycle((3, 6, 4)):
    left = iter([False] * patience)
    try:
      trainer(Store(tmp_path), checkpoint_seconds=1e9, stopping=lambda left=left: next(left, True)).run(WANTED)
      break
    except Interrupted as error:
      assert re.fullmatch(r"stopped with \d+ of \d+ steps of all runs done", str(error))
      stops += 1
  assert stops > 2 and sum(stop - start for start, stop in spans) == STEPS
  same_stages(Store(tmp_path), single.store)


def test_a_killed_process_is_continued_to_the_same_bits(single, tmp_path, monkeypatch):
  with start_worker(tmp_path, die_at=28) as worker:
    assert worker.wait(120) == -signal.SIGKILL
  store = Store(tmp_path)
  assert [stage for stage in ALL if store.has(stage)] == [ROOT, OTHER, FINETUNE]
  spans = spy_on_advance(monkeypatch.setattr)
  trainer(store).run(WANTED)
  assert spans[0][0] == 4 and sum(stop - start for start, stop in spans) == STEPS - 8 - 4
  same_stages(store, single.store)


def test_two_processes_share_the_work_and_repeat_none(single, tmp_path):
  workers = [start_worker(tmp_path) for _ in range(2)]
  steps = [int(worker.communicate(timeout=120)[0]) for worker in workers]
  assert [worker.returncode for worker in workers] == [0, 0]
  assert sum(steps) == 2 * STEPS  # of lanes: one process may begin with a lane while the other saves the next
  same_stages(Store(tmp_path), single.store)
  assert len(list((tmp_path / "stages").iterdir())) == len(ALL)


def test_a_lane_that_diverges_says_when_and_leaves_its_neighbour_alone(single, tmp_path):
  wild, store = dataclasses.replace(OTHER, learning_rate=1e20), Store(tmp_path)
  trainer(store).run([wild, FINETUNE])
  same_stages(store, single.store, [FINETUNE])  # there OTHER ran beside it
  found = store.load(wild)[0]
  bad = ~np.isfinite(found["losses"])
  first = int(bad.argmax())
  assert bad.any() and found["steps"][first - 1] <= found["diverged_step"] < found["steps"][first]
  assert [single.store.load(stage)[0]["diverged_step"] for stage in ALL[1:]] == [-1] * 4


@pytest.mark.parametrize(("most", "expected"), [(1, [1] * 5), (2, [2, 2, 1]), (64, [5])])
def test_a_program_has_at_most_that_many_lanes(tmp_path, monkeypatch, most, expected):
  store, groups = Store(tmp_path), []
  seeds = [dataclasses.replace(FINETUNE, seed=seed) for seed in range(5)]

  def train(self, lanes, *_):
    groups.append(lanes)
    for lane in lanes:
      store.save(lane, {"params": np.zeros(1)}, {})

  monkeypatch.setattr(Trainer, "_train", train)
  trainer(store, lanes_per_program=most).run(seeds)
  assert [len(group) for group in groups] == expected
  assert [lane for group in groups for lane in group] == seeds


def test_a_layout_is_chosen_once_kept_with_the_stages_and_used_by_the_next_run(tmp_path, monkeypatch):
  calibrate, chosen = calibration.calibrate, []

  def spy(*args, **options):
    chosen.append(calibrate(*args, **options, seconds=0.01))
    return chosen[-1]

  monkeypatch.setattr(calibration, "calibrate", spy)
  trainer(Store(tmp_path), layout=None).run([FINETUNE, OTHER])
  trainer(Store(tmp_path), layout=None).run(WANTED)
  ((layout, rates),) = chosen
  assert layout in calibration.candidate_layouts(2, OPTIMIZER) and min(rates.values()) > 0
  for stage in ALL[1:]:
    facts = Store(tmp_path).facts(stage)
    assert (
      facts["layout"] == vars(layout) and facts["precision"] == "highest" and facts["lane_steps_per_second"] == rates
    )
