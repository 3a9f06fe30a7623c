"""The benchmarks at their smallest: they can be imported, and the sides that they compare do the same."""

import importlib
import pathlib

import numpy as np
import pytest

from benchmarks import analysis_speed, startup_speed, sweep_speed, turns
from benchmarks.gpts import plan_of
from experiments import main  # noqa: F401 - its flags must not be those of a benchmark
from finetune_wrappers.training.schedule import identity_of

NAMES = sorted(path.stem for path in (pathlib.Path(__file__).resolve().parents[1] / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_they_can_be_imported_side_by_side(name):
  assert importlib.import_module(f"benchmarks.{name}").__doc__


def test_sides_take_turns():
  calls = []
  times = turns.in_turns({name: lambda name=name: calls.append(name) for name in "ab"}, turns=2, seconds=0.0)
  assert "".join(calls) == "ababab" and [len(values) for values in times.values()] == [2, 2]
  assert turns.rows("x", {"ours": [0.1, 0.3, 0.2], "first": [0.4, 0.4, 0.4]})[1].endswith("| 2 |")


def test_a_sweep_is_12_runs_of_one_program_and_no_turn_repeats_one():
  stages = [stage for turn in range(2) for stage in sweep_speed.sweep(plan_of("quick"), 10, turn)]
  assert len({stage.key for stage in stages}) == 24 and len({identity_of(stage) for stage in stages}) == 1


def test_attention_maps_are_what_one_would_write_first():
  sides = analysis_speed.maps(analysis_speed.Subject(4))
  np.testing.assert_allclose(sides["ours"](), sides["first"](), atol=1e-5)


def test_help_takes_no_time():
  assert startup_speed.seconds(startup_speed.commands("")["--help"]) < 3
