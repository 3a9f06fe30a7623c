"""A signal is heard at once, whatever the main thread is at, and is obeyed at the next chance."""

import hashlib
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time

import pytest

from experiments.stopping import Stopping, discarded


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_where_there_is_nothing_to_save_a_signal_ends_all_and_temporary_files_go(number, tmp_path, monkeypatch, capfd):
  before, ended = signal.getsignal(number), []
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
  monkeypatch.setattr(os, "_exit", ended.append)
  with discarded():
    folder = tempfile.mkdtemp()
    assert tmp_path in pathlib.Path(folder).parents
    os.kill(os.getpid(), number)
    time.sleep(0.01)
    assert ended == [128 + number] and not list(tmp_path.iterdir())
  assert capfd.readouterr().err == "\ninterrupted; nothing was trained\n"
  assert signal.getsignal(number) is before and tempfile.tempdir == str(tmp_path)


def test_temporary_files_go_without_a_signal_too(tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
  with discarded():
    tempfile.mkdtemp()
    assert list(tmp_path.iterdir())
  assert not list(tmp_path.iterdir())
