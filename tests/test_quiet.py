"""What is not said when a save fails, and what still is."""

import logging
import sys
import types

import pytest
from absl import logging as absl_logging

from experiments import quiet


@pytest.fixture
def heard(monkeypatch):
  """What reaches the hook that was there before."""
  said = []
  monkeypatch.setattr(sys, "unraisablehook", said.append)
  quiet.hush_failed_saves()
  yield said
  absl_logging.get_absl_handler().removeFilter(quiet._is_new)


def record(message, *args):
  return logging.LogRecord("absl", logging.ERROR, "x.py", 1, message, args, None)


@pytest.mark.parametrize(
  ("message", "args", "news"),
  [
    ("[process=%d] _SignalingThread.run() raised an exception: %s", (0, "full"), False),
    ("Task exception was never retrieved\nfuture: <Task at site-packages/orbax/checkpoint/x.py>", (), False),
    ("Task exception was never retrieved\nfuture: <Task at mine.py>", (), True),
    ("disk is slow", (), True),
    ("%d", ("not a number",), True),  # what cannot be formatted is for logging to report
  ],
)
def test_only_the_echoes_of_a_save_are_dropped_from_the_log(heard, message, args, news):
  del heard
  assert bool(absl_logging.get_absl_handler().filter(record(message, *args))) == news


def test_only_calls_into_a_closed_loop_are_kept_from_the_hook(heard):
  mine = types.SimpleNamespace(exc_value=ValueError("mine"))
  sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError("Event loop is closed")))
  sys.unraisablehook(mine)
  assert heard == [mine]
