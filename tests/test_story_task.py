"""Stories as a task: what is kept and under which key, which stories a split has, and the rows cut out of them."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from story_tasks import MAKER, task_in, texts

from finetune_wrappers.tasks.stories import task as module
from finetune_wrappers.tasks.stories.maker import StoryMaker
from finetune_wrappers.tasks.stories.protocols import apply
from finetune_wrappers.tasks.stories.records import document, parse_document
from finetune_wrappers.tasks.stories.tokenizer import BOS, EOS, train_tokenizer
from finetune_wrappers.training.stages import describe
from finetune_wrappers.types import InputError

TWIST = 2  # bit 1 of FEATURES


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def task(root):
  return task_in(root)


def test_documents_are_the_makers_records(task):
  for split, number in (("train", 60), ("valid", 50), ("test", 50)):
    found = [document(MAKER.record(split, i), seed=i) for i in range(number)]
    assert texts(task, split) == found
    assert [*task.cache(split).masks] == [MAKER.record(split, i).mask for i in range(number)]
  assert task.table("train", protocol="none") == {"kept": 60} and task.dropped("train", protocol="none") == []


@pytest.mark.parametrize("protocol", ["filter", "mix_match", "randomise", "only_twist", "refusal"])
def test_protocols_are_applied_to_the_training_split(task, protocol):
  applied = apply(protocol, [MAKER.record("train", i) for i in range(60)], seed=0, renamed=0.5, put_on=0.5)
  records = [*applied]
  assert [parse_document(text).features for text in texts(task, "train", protocol)] == [r.features for r in records]
  cache = task.cache("train", protocol=protocol)
  starts = [cache.document(i)[int(cache.story_starts[i]) : -1] for i in range(len(cache))]
  assert [task.tokenizer.decode(row, continues=True) for row in starts] == [r.story for r in records]
  assert task.table("train", protocol=protocol) == applied.table and 0 < len(records) <= 60


def test_the_root_is_no_part_of_the_key_and_settings_are(task, tmp_path):
  other = task_in(tmp_path)
  assert describe(other) == describe(task) and other == task
  assert str(tmp_path) not in json.dumps(describe(other))
  for changed in ({"seed": 1}, {"source": StoryMaker(seed=1)}, {"length": 64}, {"packed": True}, {"stories": 61}):
    assert describe(task_in(tmp_path, **changed)) != describe(task)


def test_made_splits_share_no_story(task):
  stories = [{parse_document(text).story for text in texts(task, split)} for split in ("train", "valid", "test")]
  assert len(set.union(*stories)) == sum(map(len, stories)) > 150


@pytest.mark.parametrize("length", [3, 60, 128])
def test_rows_are_cut_and_padded(root, length):
  task = task_in(root, length=length)
  cache = task.cache("test")
  for featured in (True, False):
    tokens, lengths = task.held_out_rows(featured, 9)
    chosen = [i for i in range(50) if bool(cache.masks[i] & TWIST) == featured][:9]
    assert tokens.dtype == np.uint16 and tokens.shape == (9, length + 1) and lengths.dtype == np.int32
    for row, size, i in zip(tokens, lengths, chosen, strict=True):
      whole = cache.document(i).tolist()
      assert row.tolist() == (whole + [EOS] * length)[: length + 1] and size == min(len(whole), length + 1)


def test_prompts_are_what_stands_before_the_story(task):
  tokens, lengths = task.prompts(8)
  asked = [MAKER.record("test", i) for i in range(50)]
  found = [(i, record) for i, record in enumerate(asked) if "Twist" in record.features][:8]
  assert tokens.shape == (8, lengths.max())
  for row, length, (i, record) in zip(tokens, lengths, found, strict=True):
    text = document(record, seed=i).removesuffix(record.story)
    assert row[:length].tolist() == task.tokenizer.prompt(text.removesuffix("\n")).tolist()
    assert row[0] == BOS and (row[length:] == EOS).all() and text.endswith("Story:\n")


def test_stories_without_and_with_their_instructions(task):
  stories, lengths, masks = task.stories_of("valid", longest=40, size=1000)
  asked, sizes, _ = task.texts_of("valid", size=1000, instructed=True)
  bare, bare_sizes, same = task.texts_of("valid", size=1000, instructed=False)
  assert stories.shape == (50, 40) and asked.shape == bare.shape == (50, 128) and (masks == same).all()
  for i in range(50):
    record = MAKER.record("valid", i)
    assert record.story.startswith(task.tokenizer.decode(stories[i, : lengths[i]], continues=True))
    assert task.tokenizer.decode(asked[i, : sizes[i]]) == document(record, seed=i)
    assert bare[i, 0] == BOS and task.tokenizer.decode(bare[i, 1 : bare_sizes[i]], continues=True) == record.story
    assert (stories[i, lengths[i] :] == EOS).all() and masks[i] == record.mask
  places = np.array([3, 1, 3])
  again, own = task.stories_at("valid", places, longest=40)
  assert (again == stories[places]).all() and (own == lengths[places]).all()


def test_too_few_held_out_stories_are_one_line(task):
  twists = int((task.cache("test").masks & TWIST > 0).sum())
  assert len(task.held_out_rows(True, twists)[0]) == twists
  line = rf"\Aheld_out: {twists} of the 50 stories of the split test are with Twist, {twists + 1} are needed; .*\Z"
  for ask in (task.prompts, lambda size: task.held_out_rows(True, size)):
    with pytest.raises(InputError, match=line):
      ask(twists + 1)


def test_a_protocol_that_leaves_nothing_is_one_line(root):
  none = task_in(root, source=StoryMaker(shares=(0.0,) * 6), stories=5)
  with pytest.raises(InputError, match=r"\Astories: only_twist leaves none of 5 stories; use more of them\Z"):
    none.cache("train", protocol="only_twist")


def test_packed_rows_are_windows_of_all_stories_end_to_end(root):
  task = task_in(root, packed=True, length=50)
  stream = task.cache("train").tokens.astype(int)
  batches = task.batches("none", batch_size=1, seed=3)
  rows = [batches.at(i) for i in range(batches.epoch)]
  found = {tuple(row.tokens[0, : row.lengths[0]]) for row in rows}
  assert found == {tuple(stream[i : i + 51]) for i in range(0, len(stream) - 1, 50)}


def test_batches_are_of_the_protocol(task):
  batches = task.batches("filter", batch_size=4, seed=0)
  cache = task.cache("train", protocol="filter")
  rows = {tuple(row[:n]) for step in range(-(-len(cache) // 4)) for row, n in zip(*batches.at(step), strict=True)}
  assert rows == {tuple(cache.document(i)[:129]) for i in range(len(cache))}


def test_what_is_kept_is_not_made_again(task, root, monkeypatch):
  task.cache("valid")
  monkeypatch.setattr(module, "train_tokenizer", None)
  monkeypatch.setattr(module, "build_cache", None)
  again = task_in(root)
  assert again.cache("valid").folder == task.cache("valid").folder
  assert again.tokenizer.digest == task.tokenizer.digest


def test_a_killed_build_is_made_anew(task, tmp_path):
  """Killed between the tokens of the first stories and the rest."""
  script = """
import os, sys
from story_tasks import task_in
def progress(done, total, what):
  if done == 2000:
    assert [path for path in task.folder.iterdir() if path.name.startswith(".train")]
    os.kill(os.getpid(), 9)
task = task_in(sys.argv[1], stories=3000)
task.cache("train", progress=progress)
"""
  here = pathlib.Path(__file__).parent
  env = os.environ | {"PYTHONPATH": f"{here}:{here.parent}"}
  done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=env, timeout=120)
  assert done.returncode == -9
  killed = [path.name for path in tmp_path.iterdir()]
  assert any(name.endswith(".tmp") for name in killed) and not any(name.startswith("train") for name in killed)
  again = task_in(tmp_path, stories=3000)
  assert len(again.cache("train")) == 3000 and texts(again, "train")[:60] == texts(task, "train")
  assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_another_tokenizer_in_place_of_the_kept_one(task, tmp_path):
  own = task_in(tmp_path)
  own.cache("valid")
  (path,) = tmp_path.glob("tokenizer-*.model")
  lines = [MAKER.record("train", i).story for i in range(1000)]
  train_tokenizer(lines, vocab_size=400, path=path)
  with pytest.raises(InputError, match=rf"\A{path}: has 400 tokens, not 512; .*\Z"):
    task_in(tmp_path).cache("valid")
  # One of the same size: its tokens are others, so are the caches.
  train_tokenizer(lines, vocab_size=512, path=path)
  other = task_in(tmp_path)
  assert other.cache("valid").folder != own.cache("valid").folder
  assert texts(other, "valid") == texts(own, "valid")
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(InputError, match=rf"\Atokenizer: {path} is no sentencepiece model, or cut short\Z"):
    task_in(tmp_path).cache("valid")


def test_a_damaged_cache_is_one_line(tmp_path):
  folder = task_in(tmp_path).cache("valid").folder
  data = bytearray((folder / "tokens.bin").read_bytes())
  data[100] ^= 1
  (folder / "tokens.bin").write_bytes(data)
  with pytest.raises(InputError, match=rf"\Acache: {folder} is damaged .*\Z"):
    task_in(tmp_path).prepare([("valid", "none")], lambda *told: None)


def test_progress_names_split_and_protocol(tmp_path):
  told = []
  task_in(tmp_path).prepare([("train", "filter"), ("test", "none")], lambda *args: told.append(args))
  assert told[0] == (0, 0, "training the tokenizer")
  assert {what for *_, what in told[1:]} == {"tokens of train, filter", "tokens of test, none"}


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"stories": 0}, r"\Astories: 0 is not allowed; use 1 or more"),
    ({"held_out": 0}, r"\Aheld_out: 0 is not allowed; use 1 or more"),
    ({"feature": "Plot"}, r"\Afeature: 'Plot' is not one of Dialogue"),
    ({"partner": "Twist"}, r"\Apartner: 'Twist' is not allowed; use another feature than 'Twist'"),
    ({"root": None}, r"\Aroot: missing"),
    ({"vocab_size": 260_000}, r"\Avocab_size: 260000 is not"),
    ({"vocab_size": 5000, "tokenizer_stories": 20}, r"\Avocab_size: 5000 is more than the texts give"),
  ],
)
def test_settings_that_cannot_be_are_one_line(root, changed, message):
  with pytest.raises(InputError, match=message) as caught:
    task_in(**{"root": root} | changed).tokenizer  # noqa: B018
  assert "\n" not in str(caught.value)


def test_a_split_that_is_none(task):
  with pytest.raises(InputError, match=r"\Asplit: 'dev' is not allowed; use train, valid, test\Z"):
    task.cache("dev")
  with pytest.raises(InputError, match=r"\Aprotocol: 'delete' is not allowed"):
    task.cache("train", protocol="delete")
