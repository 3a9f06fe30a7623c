"""Paths of workdirs, and what killed writes leave."""

import fcntl
import os
import pathlib

import pytest

from finetune_wrappers import files
from finetune_wrappers.types import InputError

LEFT = ".config.json.0123456789ab.tmp"


def test_a_home_folder_is_taken_as_the_shell_does_and_other_paths_are_absolute(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.chdir(tmp_path)
  assert os.fspath(files.located("~/runs")) == str(tmp_path / "home" / "runs")
  assert os.fspath(files.located("runs")) == os.fspath(files.located(pathlib.Path("runs"))) == str(tmp_path / "runs")
  assert os.fspath(files.located(".")) == str(tmp_path)


@pytest.mark.parametrize(
  ("workdir", "words"),
  [
    ("", "empty; give a folder"),
    ("gs://bucket/runs", r"gs://bucket/runs cannot be used \(.*gcsfs.*\)"),
    ("s3://bucket/runs", r"s3://bucket/runs cannot be used \(.*s3fs.*\)"),
    ("foo://x", r"foo://x cannot be used \(no such kind of path\)"),
    ("~no_such_user/runs", "~no_such_user/runs has no such home folder"),
  ],
)
def test_a_workdir_that_cannot_be_is_one_line(workdir, words):
  with pytest.raises(InputError, match=rf"\Aworkdir: {words}[^\n]*\Z"):
    files.located(workdir)


def test_the_next_write_removes_what_killed_ones_left_and_nothing_that_is_being_written(tmp_path):
  kept = (".other.tmp", ".rows.0123456789ab.tmp.txt", "config.json.0123456789ab.tmp", ".beside.abcdefabcdef.tmp")
  for name in (LEFT, *kept):
    (tmp_path / name).write_text("half")
  with (tmp_path / ".beside.abcdefabcdef.tmp").open("wb") as file:
    fcntl.flock(file, fcntl.LOCK_EX)  # as the process does that writes it
    files.write_atomically(tmp_path / "rows.jsonl", b"whole")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "rows.jsonl"])
  files.write_atomically(tmp_path / "rows.jsonl", b"again")
  assert sorted(os.listdir(tmp_path)) == sorted([*kept[:-1], "rows.jsonl"])
  assert (tmp_path / "rows.jsonl").read_bytes() == b"again"


def test_a_file_that_another_process_tidies_before_it_is_locked_is_written_again(tmp_path, monkeypatch):
  flock, taken = fcntl.flock, []

  def beaten(file, how):
    if not taken:
      taken.append(os.listdir(tmp_path))
      os.unlink(file.name)
    flock(file, how)

  monkeypatch.setattr(files.fcntl, "flock", beaten)
  files.write_atomically(tmp_path / "rows.jsonl", b"whole")
  assert len(taken[0]) == 1 and os.listdir(tmp_path) == ["rows.jsonl"]
  assert (tmp_path / "rows.jsonl").read_bytes() == b"whole"


def test_a_file_is_locked_until_it_has_its_name(tmp_path, monkeypatch):
  replaced, replace = [], os.replace

  def tidied_meanwhile(source, target):
    files._tidy(files.epath.Path(tmp_path))
    replaced.append(os.path.exists(source))
    replace(source, target)

  monkeypatch.setattr(os, "replace", tidied_meanwhile)
  files.write_atomically(tmp_path / "rows.jsonl", b"whole")
  assert replaced == [True]
