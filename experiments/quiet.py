"""Silences the threads of a failed save; the command reports the error itself, in one line."""

import sys

from absl import logging


def hush_failed_saves() -> None:
  """Hides repeats of a failed save's error from Orbax's threads; the caller already gets it."""
  logging.get_absl_handler().addFilter(_is_new)
  before = sys.unraisablehook

  def hook(unraisable) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":  # TensorStore calls back into a closed loop
      before(unraisable)

  sys.unraisablehook = hook


def _is_new(record) -> bool:
  """False for messages of Orbax's threads, and of asyncio about tasks that they abandon."""
  text = str(record.msg)
  of_a_task = "Task exception was never retrieved" in text and "orbax" in text
  return not (of_a_task or "_SignalingThread.run() raised" in text)
