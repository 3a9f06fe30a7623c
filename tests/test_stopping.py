"""A signal is heard at once, whatever the main thread is at, and is obeyed at the next chance."""

import hashlib
import os
import signal
import sys
import threading
import time

import pytest

from experiments.stopping import Stopping, interruptible


class Heard:
  """Standard error that knows when it was first written to."""

  def __init__(self):
    self.text, self.at = "", 0.0

  def write(self, text):
    self.text, self.at = self.text + text, self.at or time.monotonic()

  def flush(self):
    pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_said_while_the_main_thread_runs_no_python(number, monkeypatch):
  before, heard = signal.getsignal(number), Heard()
  monkeypatch.setattr(sys, "stderr", heard)
  with Stopping() as stopping:
    timer = threading.Timer(0.1, os.kill, (os.getpid(), number))
    timer.start()
    hashlib.pbkdf2_hmac("sha256", b"x", b"x", 3_000_000)  # as a compilation: seconds without a chance for a handler
    ended = time.monotonic()
    assert stopping() and stopping.signal == number
    timer.join()
    assert 0 < heard.at < ended - 0.1
    with pytest.raises(KeyboardInterrupt) as second:
      os.kill(os.getpid(), number)
  assert second.value.args == (number,)
  assert heard.text.count("stopping: saves at the next chance") == 1
  assert signal.getsignal(number) is before and signal.set_wakeup_fd(-1) == -1
  assert not any(thread.name.startswith("stopping") for thread in threading.enumerate())


def test_nothing_is_said_without_a_signal(capfd):
  with Stopping() as stopping:
    assert not stopping()
  assert capfd.readouterr().err == ""


def test_sigterm_leaves_as_an_interruption_where_there_is_nothing_to_save():
  before = signal.getsignal(signal.SIGTERM)
  with pytest.raises(KeyboardInterrupt) as caught, interruptible():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
  assert caught.value.args == (signal.SIGTERM,) and signal.getsignal(signal.SIGTERM) is before
