"""SIGINT and SIGTERM: training saves at its next chance, then the command ends."""

import signal
import sys
from types import FrameType


class Stopping:
  """Whether a signal asked the process to stop; a context manager.

  The first signal is remembered; a second one stops at once and loses the steps since the last checkpoint.

  Attributes:
    signal: number of the first signal, or 0.
  """

  def __init__(self) -> None:
    self.signal = 0
    self._before: dict[signal.Signals, object] = {}

  def __enter__(self) -> "Stopping":
    for number in (signal.SIGINT, signal.SIGTERM):
      self._before[number] = signal.signal(number, self._remember)
    return self

  def __exit__(self, *_) -> None:
    for number, before in self._before.items():
      signal.signal(number, before)  # pyright: ignore[reportArgumentType]

  def __call__(self) -> bool:
    """Whether to stop."""
    return self.signal > 0

  def _remember(self, number: int, frame: FrameType | None) -> None:
    del frame
    if self.signal:
      raise KeyboardInterrupt(number)
    self.signal = number
    print("\nstopping; a second signal stops at once", file=sys.stderr)
