"""SIGINT and SIGTERM: training saves at its next chance, then the command ends."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from types import FrameType

_HEARD = "\nstopping: saves at the next chance, after a compilation that runs now; a second signal does not save"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
  """Whether a signal asked the process to stop; a context manager.

  The first signal is remembered, and a thread says at once that it was heard: Python's own handlers wait for a running
  compilation. A second one stops without saving and loses the steps since the last checkpoint.

  Attributes:
    signal: number of the first signal, or 0.
  """

  def __init__(self) -> None:
    self.signal = 0
    self._undo = contextlib.ExitStack()

  def __enter__(self) -> "Stopping":
    for number in _SIGNALS:
      self._undo.callback(signal.signal, number, signal.signal(number, self._remember))
    heard, told = os.pipe()
    os.set_blocking(told, False)
    listener = threading.Thread(target=_say, args=(heard,), name="stopping", daemon=True)
    listener.start()
    self._undo.callback(listener.join)
    self._undo.callback(os.close, told)  # ends the thread
    self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(told, warn_on_full_buffer=False))
    return self

  def __exit__(self, *_) -> None:
    self._undo.close()

  def __call__(self) -> bool:
    """Whether to stop."""
    return self.signal > 0

  def _remember(self, number: int, frame: FrameType | None) -> None:
    del frame
    if self.signal:
      raise KeyboardInterrupt(number)
    self.signal = number


@contextlib.contextmanager
def discarded() -> Iterator[None]:
  """A context whose temporary files go at its end, and at a signal, which ends the process: there is nothing to save.

  The handler raises no exception: JAX loses one that comes while it calls back from a compilation.
  """
  with tempfile.TemporaryDirectory() as own:

    def leave(number: int, frame: FrameType | None) -> None:
      del frame
      shutil.rmtree(own, ignore_errors=True)
      print("\ninterrupted; nothing was trained", file=sys.stderr, flush=True)
      os._exit(128 + number)

    before = {number: signal.signal(number, leave) for number in _SIGNALS}
    outside, tempfile.tempdir = tempfile.tempdir, own
    try:
      yield
    finally:
      tempfile.tempdir = outside
      for number, handler in before.items():
        signal.signal(number, handler)


def _say(heard: int) -> None:
  """Says once that a signal came; ends when the other end of the pipe is closed."""
  said = False
  with os.fdopen(heard, "rb", buffering=0) as numbers:
    while number := numbers.read(1):
      if number[0] in _SIGNALS and not said:
        print(_HEARD, file=sys.stderr, flush=True)
        said = True
