"""Keeps the threads of a failed save quiet: what there is to say the command says itself, in one line."""

import sys

from absl import logging


def hush_failed_saves() -> None:
  """A save that fails raises where it was asked for; that the threads it used fail with it is no news."""
  logging.get_absl_handler().addFilter(_is_news)
  before = sys.unraisablehook

  def hook(unraisable) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":  # TensorStore calls back into a loop that is gone
      before(unraisable)

  sys.unraisablehook = hook


def _is_news(record) -> bool:
  """Not what Orbax's threads say, nor what asyncio says of tasks that they leave."""
  text = str(record.msg)
  of_a_task = "Task exception was never retrieved" in text and "orbax" in text
  return not (of_a_task or "_SignalingThread.run() raised" in text)
