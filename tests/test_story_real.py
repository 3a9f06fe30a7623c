"""Stories of files: keys, splits, what is left out, and paths that cannot be."""

import json
import os
import pathlib
import shutil

import pytest
from story_tasks import MAKER, files_in, task_in, texts

from finetune_wrappers.tasks.stories.real import StoryFiles
from finetune_wrappers.tasks.stories.records import parse_document
from finetune_wrappers.tasks.stories.story_files import read_records, write_text
from finetune_wrappers.training.stages import describe
from finetune_wrappers.types import InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  return files_in(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def read(files, root):
  return task_in(root, source=StoryFiles(train=files[:1], valid=files[1:]), stories=0, held_out=0)


def test_keys_know_files_by_their_contents(files, read, root, tmp_path):
  moved = tuple(shutil.copy(path, tmp_path / f"other{pathlib.Path(path).suffix}") for path in files)
  moved = tuple(map(str, moved))
  same = task_in(root, source=StoryFiles(train=moved[:1], valid=moved[1:]), stories=0, held_out=0)
  assert describe(same) == describe(read)
  told = json.dumps(describe(same))
  assert "other" not in told and "a.txt" not in told and str(tmp_path) not in told
  assert all(digest in told for group in same.source.digests for digest in group)
  about = os.stat(moved[0])
  text = pathlib.Path(moved[0]).read_text()
  pathlib.Path(moved[0]).write_text(text.replace("fox", "cat", 1))  # the same length
  os.utime(moved[0], ns=(about.st_atime_ns, about.st_mtime_ns + 10**9))
  changed = StoryFiles(train=moved[:1], valid=moved[1:])
  assert changed.digests[0] != same.source.digests[0] and changed.digests[1] == same.source.digests[1]


def test_the_text_of_a_held_out_story_decides_its_split(files, read):
  held = [record.story for record in read_records(files[1])]
  stories = {split: [parse_document(text).story for text in texts(read, split)] for split in ("train", "valid", "test")}
  assert [story for story in held if story in {*stories["test"]}] == stories["test"]
  assert [story for story in held if story not in {*stories["test"]}] == stories["valid"]
  assert 0.3 < len(stories["test"]) / len(held) < 0.7
  assert stories["train"] == [record.story for record in read_records(files[0])]
  assert len({story for own in stories.values() for story in own}) == 1100


def test_no_story_is_in_two_splits_however_often_it_is_in_the_files(files, root, tmp_path):
  trained, held = [*read_records(files[0])], [*read_records(files[1])]
  path = str(tmp_path / "again.txt")
  write_text(path, [*held, *trained[:20], *held, *held[::-1]])
  again = task_in(root, source=StoryFiles(train=files[:1], valid=(path,)), stories=0, held_out=0)
  found = {split: {parse_document(text).story for text in texts(again, split)} for split in ("train", "valid", "test")}
  assert not found["train"] & (found["valid"] | found["test"]) and not found["valid"] & found["test"]
  assert found["valid"] | found["test"] == {record.story for record in held}
  assert sum(again.cache(split).manifest["notes"]["repeated"] for split in ("valid", "test")) == 20


def test_a_number_of_stories_of_files_is_the_first_ones(files, read, root):
  few = task_in(root, source=StoryFiles(train=files[:1], valid=files[1:]), stories=7, held_out=5)
  assert texts(few, "test")[0].rpartition("Story:")[2] == texts(read, "test")[0].rpartition("Story:")[2]
  assert [len(few.cache(split)) for split in ("train", "valid", "test")] == [7, 5, 5]


def test_malformed_records_are_told_with_file_and_line(files, root, tmp_path):
  path = tmp_path / "bad.txt"
  documents = pathlib.Path(files[0]).read_text().split("<|endoftext|>")
  documents[2] = "\nFeatures: Twist\nno label\n"
  path.write_text("<|endoftext|>".join(documents))
  source = StoryFiles(train=(str(path),), valid=files[1:])
  bad = task_in(root, source=source, stories=0, held_out=0)
  line = 2 + "<|endoftext|>".join(documents[:2]).count("\n")
  assert bad.dropped("train", protocol="none") == [(1, "no story", f"{path}:{line}")]
  assert (
    bad.dropped("train", protocol="filter") == bad.dropped("train", protocol="none")
    and bad.dropped("test", protocol="none") == []
  )
  assert len(bad.cache("train")) == 999
  # One in a thousand is more than none.
  strict = StoryFiles(train=(str(path),), valid=files[1:], bad_share=0.0)
  with pytest.raises(InputError, match=r"\Abad_share: 1 of .*no story.*bad\.txt:\d+\Z"):
    task_in(root, source=strict, stories=0, held_out=0).cache("train")


def test_paths_from_the_home_folder(files, monkeypatch, root):
  monkeypatch.setenv("HOME", str(pathlib.Path(files[0]).parent))
  source = StoryFiles(train=("~/a.txt",), valid=("~/b.json",))
  assert next(source.records("train", 1)[0]).story == MAKER.record("train", 0).story


@pytest.mark.parametrize(
  ("train", "valid", "message"),
  [
    (("a.txt",), ("none.txt",), r"\Avalid: .*none\.txt cannot be read \(No such file or directory\)\Z"),
    (("folder.txt",), ("b.json",), r"\Atrain: .*folder\.txt cannot be read \(Is a directory\)\Z"),
    (("a.txt",), ("a.txt",), r"\Avalid: .* use files other than those of train\Z"),
    (("a.txt",), (), r"\Avalid: \(\) is not allowed"),
    (("a.csv",), ("b.json",), r"\Atrain: .*a\.csv' is not the path of a \.txt or \.json file"),
  ],
)
def test_paths_that_cannot_be_are_one_line(files, train, valid, message, tmp_path):
  for path in files:
    shutil.copy(path, tmp_path)
  (tmp_path / "folder.txt").mkdir()
  paths = [tuple(str(tmp_path / name) for name in names) for names in (train, valid)]
  with pytest.raises(InputError, match=message) as caught:
    StoryFiles(train=paths[0], valid=paths[1])
  assert "\n" not in str(caught.value)
