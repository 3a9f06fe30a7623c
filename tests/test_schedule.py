"""The plan of a Trainer: what is made together, in which order, and from where. Stages are test_loop's."""

import dataclasses
import random
import sys

import pytest
from test_loop import ALL, FINETUNE, MODEL, OTHER, REFT, ROOT, STILL, WANTED, build, trainer

from finetune_wrappers.training.loop import Trainer
from finetune_wrappers.training.methods import Subset
from finetune_wrappers.training.schedule import Work, all_works, identity_of, next_group, works_of
from finetune_wrappers.training.store import Store


def test_a_root_is_made_first_then_every_lane_of_one_program_whose_parent_is_finished():
  wanted = {stage.key: stage for stage in ALL}
  assert next_group(ALL, wanted) == [ROOT]
  del wanted[ROOT.key]
  assert next_group(list(wanted.values()), wanted) == [OTHER, FINETUNE]
  other_program = dataclasses.replace(OTHER, method=Subset(trained="matrices"))
  assert identity_of(OTHER) == identity_of(FINETUNE) == identity_of(REFT) != identity_of(other_program)
  left = [other_program, FINETUNE, REFT]
  assert next_group(left, {stage.key: stage for stage in left}) == [other_program]
  assert next_group([STILL], {stage.key: stage for stage in (OTHER, STILL)}) == []


def test_lanes_that_have_come_equally_far_go_together_the_farthest_first():
  lanes = [dataclasses.replace(FINETUNE, seed=seed) for seed in range(5)]
  far = {lanes[1].key: 4, lanes[3].key: 4, lanes[4].key: 2}
  works = works_of(lanes, far, 2)
  found = [([lanes.index(stage) for stage in work.stages], work.position, work.lane_steps) for work in works]
  assert found == [([1, 3], 4, 8), ([4], 2, 6), ([0, 2], 0, 16)]


def one_after_another(wanted, far, size):
  """Works by asking again after each, as a run does."""
  left, found = {stage.key: stage for stage in wanted}, []
  while left:
    group = next_group(list(left.values()), left)
    found.append(works_of(group, far, size(group[0]))[0])
    for stage in found[-1].stages:
      del left[stage.key]
  return found


def chains(number, draw):
  """Lanes of two programs in chains of up to three, some of whose parents are made already."""
  wanted = [ROOT] if draw.random() < 0.5 else []
  for seed in range(number):
    method = draw.choice([FINETUNE.method, Subset(trained="matrices")])
    parent = draw.choice([FINETUNE.parent, *(s for s in wanted if s is not ROOT)])
    wanted.append(dataclasses.replace(FINETUNE, seed=seed, method=method, parent=parent))
  return wanted


def test_all_works_are_those_of_one_choice_after_another():
  for seed in range(30):
    draw = random.Random(seed)
    wanted = chains(12, draw)
    far = {stage.key: draw.choice([0, 2, 4]) for stage in wanted if stage is not ROOT and draw.random() < 0.5}
    sizes = {identity_of(stage): draw.randint(1, 4) for stage in wanted if stage is not ROOT}
    size = lambda stage, sizes=sizes: sizes.get(identity_of(stage), 1) if stage is not ROOT else 1  # noqa: E731
    works = all_works(wanted, far, size)
    assert works == one_after_another(wanted, far, size)
    assert sum(len(work.stages) for work in works) == len(wanted)


def test_planning_takes_as_many_steps_as_there_are_lanes():
  def calls(number):
    lanes = [dataclasses.replace(FINETUNE, seed=seed) for seed in range(number)]
    assert len({lane.key for lane in lanes}) == number
    identity_of.cache_clear()
    counted = [0]
    sys.setprofile(lambda *_: counted.__setitem__(0, counted[0] + 1))
    try:
      all_works(lanes, {}, lambda lane: 1)
    finally:
      sys.setprofile(None)
    return counted[0]

  assert calls(1600) < 5 * calls(400)


def test_the_plan_is_what_a_run_does(tmp_path, monkeypatch):
  """Order, company and position, from nothing and from a checkpoint on the way; planning makes nothing."""

  def roots(stage):
    return MODEL, build(stage)[0]["params"]

  def works_of_a_run(store):
    done, make = [], Trainer._make
    far = run._checkpoints.steps()
    spy = lambda self, stages: (done.append((tuple(stages), far.get(stages[0].key, 0))), make(self, stages))  # noqa: E731
    monkeypatch.setattr(Trainer, "_make", spy)
    run.run(WANTED)
    monkeypatch.setattr(Trainer, "_make", make)
    return [Work(*work) for work in done]

  def interrupt(done, total, text):
    if done == 28:
      raise KeyboardInterrupt

  for folder, prepare in (("fresh", None), ("resumed", interrupt)):
    store = Store(tmp_path / folder)
    if prepare:
      with pytest.raises(KeyboardInterrupt):
        trainer(store, progress=prepare).run(WANTED)
    run = trainer(store)
    plan = run.plan(WANTED, roots)
    assert works_of_a_run(store) == plan
  assert [len(work.stages) for work in plan] == [2] and plan[0].position == 4 and plan[0].lane_steps == 8
  assert trainer(store).plan(WANTED, roots) == []
