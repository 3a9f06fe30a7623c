"""Keeps the threads of a failed save quiet: what there is to say the command says itself, in one line."""

import sys
from typing import Any

from absl import logging

# Orbax's threads, asyncio's tasks that they leave, and TensorStore's calls back into a loop that is gone.
_ECHOES = ("_SignalingThread.run() raised", "Task exception was never retrieved", "Event loop is closed")
_others: list[Any] = []


def hush_failed_saves() -> None:
  """A save that fails raises where it was asked for; that the threads it used fail with it is no news."""
  logging.get_absl_handler().addFilter(_is_news)
  if sys.unraisablehook is not _hook:
    _others.append(sys.unraisablehook)
    sys.unraisablehook = _hook


def _is_news(record) -> bool:
  return not any(echo in record.getMessage() for echo in _ECHOES)


def _hook(unraisable) -> None:
  if not any(echo in str(unraisable.exc_value) for echo in _ECHOES):
    _others[-1](unraisable)
