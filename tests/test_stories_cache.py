"""The token cache: what went in comes out, and a damaged or foreign one is refused in one line."""

import functools
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from finetune_wrappers.tasks.stories import cache as module
from finetune_wrappers.tasks.stories import folders
from finetune_wrappers.tasks.stories.cache import TokenCache, build_cache
from finetune_wrappers.tasks.stories.tokenizer import train_tokenizer
from finetune_wrappers.types import InputError

DOCUMENTS = [
  ("Features: Twist\nStory:" if i % 3 else "", f"Once {i} cats sat.\n\u2581 The  end{'!' * (i % 7)}", i % 64)
  for i in range(200)
]
SOURCES = {"a.txt": "12ab", "maker": {"seed": 0}}


@functools.cache
def tokenizer(vocab_size=300):
  return train_tokenizer([story for _, story, _ in DOCUMENTS], vocab_size=vocab_size)


def built(folder, documents=DOCUMENTS, **options):
  return build_cache(folder, iter(documents), tokenizer(), **{"sources": SOURCES} | options)


@pytest.mark.parametrize("at_once", [1, 500, 2**20])
def test_what_went_in_comes_out(tmp_path, monkeypatch, at_once):
  monkeypatch.setattr(module, "_AT_ONCE", at_once)
  seen = []
  found = built(tmp_path / "c", progress=lambda *counts: seen.append(counts))
  assert len(found) == 200 and found.masks.tolist() == [mask for *_, mask in DOCUMENTS]
  for i, (instruction, story, _) in enumerate(DOCUMENTS):
    before = instruction + "\n" if instruction else ""
    assert found.document(i).tolist() == [1, *tokenizer().encode(before + story), 2]
    rest = found.document(i)[found.story_starts[i] :]
    assert tokenizer().decode(rest, continues=bool(before)) == story
  size = sum(len(text.encode()) for *texts, _ in DOCUMENTS for text in texts)
  assert found.manifest["counts"] == {"documents": 200, "tokens": len(found.tokens), "bytes": size}
  assert seen[-1] == (200, size) and [n for n, _ in seen] == sorted({n for n, _ in seen})
  assert len(seen) == 200 if at_once == 1 else len(seen) < 40
  found.verify()
  assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_files_are_plain_numbers_and_equal_caches_are_equal_bytes(tmp_path):
  one, two = built(tmp_path / "1"), built(tmp_path / "2")
  files = sorted(path.name for path in one.folder.iterdir())
  assert files == ["manifest.json", "masks.bin", "starts.bin", "story_starts.bin", "tokens.bin"]
  assert all((one.folder / name).read_bytes() == (two.folder / name).read_bytes() for name in files)
  tokens = np.frombuffer((one.folder / "tokens.bin").read_bytes(), "<u2")
  starts = np.frombuffer((one.folder / "starts.bin").read_bytes(), "<u8")
  assert np.array_equal(np.flatnonzero(tokens == 1), starts[:-1]) and starts[-1] == len(tokens)


def test_a_finished_cache_is_opened_and_not_made_again(tmp_path):
  built(tmp_path / "c")
  assert len(build_cache(tmp_path / "c", iter([]), tokenizer(), sources=SOURCES)) == 200
  (tmp_path / "empty").mkdir()
  assert len(built(tmp_path / "empty")) == 200


def test_arrays_cannot_be_written(tmp_path):
  with pytest.raises(ValueError):
    built(tmp_path / "c").tokens[0] = 0


@pytest.mark.parametrize("i", [-1, 200])
def test_documents_outside_are_refused(tmp_path, i):
  with pytest.raises(InputError, match=r"^document: .* use 0 to 199$"):
    built(tmp_path / "c").document(i)


@pytest.mark.parametrize(
  ("sources", "message"),
  [
    ({"a.txt": "0000", "maker": {"seed": 0}}, "sources: a.txt has changed since"),
    ({"a.txt": "12ab", "maker": {"seed": 1}}, "sources: maker has changed since"),
    ({"a.txt": "12ab"}, "sources: maker is missing since"),
    ({**SOURCES, "b.txt": "1"}, "sources: b.txt is new since"),
  ],
)
def test_other_sources_are_refused(tmp_path, sources, message):
  built(tmp_path / "c")
  for use in (TokenCache.open, lambda folder, sources: built(folder, sources=sources)):
    with pytest.raises(InputError, match="^" + message):
      use(tmp_path / "c", sources=sources)
  TokenCache.open(tmp_path / "c", sources=SOURCES, tokenizer=tokenizer())


def test_another_tokenizer_is_refused(tmp_path):
  built(tmp_path / "c")
  with pytest.raises(InputError, match=r"^tokenizer: cache .* was made with another \(300 ids then, 290 now\)"):
    TokenCache.open(tmp_path / "c", tokenizer=tokenizer(290))


@pytest.mark.parametrize("name", ["manifest.json", "masks.bin", "starts.bin", "story_starts.bin", "tokens.bin"])
@pytest.mark.parametrize("how", ["short", "shorter", "empty", "long", "flipped", "missing", "folder"])
def test_damage_is_one_line(tmp_path, name, how):
  found = built(tmp_path / "c")
  path = tmp_path / "c" / name
  data = path.read_bytes()
  if how in ("missing", "folder"):
    path.unlink()
    if how == "folder":
      path.mkdir()
  else:
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    changed = {"short": data[:-1], "shorter": data[:-8], "empty": b"", "long": data + b"12345678", "flipped": flipped}
    path.write_bytes(changed[how])
  with pytest.raises(InputError, match=rf"^cache: {tmp_path}/c .*") as error:
    TokenCache.open(tmp_path / "c", tokenizer=tokenizer(), sources=SOURCES).verify()
  assert "\n" not in str(error.value)
  del found


def test_every_flipped_bit_of_the_manifest_is_seen(tmp_path):
  built(tmp_path / "c")
  path, seen = tmp_path / "c" / "manifest.json", 0
  data = path.read_bytes()
  for place in range(0, len(data), 7):
    changed = bytearray(data)
    changed[place] ^= 1 << place % 8
    path.write_bytes(changed)
    try:
      same = TokenCache.open(tmp_path / "c").manifest
    except InputError:
      seen += 1
    else:
      assert same == json.loads(data)["contents"]  # a space became another blank
  assert seen > 0.8 * len(data) / 7


@pytest.mark.parametrize("text", ["[]", "null", "3", '{"contents": 3, "sha256": "x"}', "[" * 10**5, "\ud800", "{"])
def test_a_manifest_that_is_none_is_refused(tmp_path, text):
  built(tmp_path / "c")
  (tmp_path / "c" / "manifest.json").write_text(text, errors="surrogatepass")
  with pytest.raises(InputError, match=r"damaged \(manifest\.json .*remove it to build it again"):
    TokenCache.open(tmp_path / "c")


def test_places_that_cannot_be_used_are_named(tmp_path):
  (tmp_path / "file").write_text("")
  for folder, message in (
    (tmp_path / "none", "is not there; build it first"),
    (tmp_path / "file", "cannot be read"),
    ("gs://bucket/c", "a folder of this machine"),
    ("", "a folder of this machine"),
  ):
    with pytest.raises(InputError, match=message):
      TokenCache.open(folder)
  with pytest.raises(InputError, match="cannot be written"):
    built(tmp_path / "file" / "c")
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "mine.txt").write_text("kept")
  with pytest.raises(InputError, match="manifest.json is missing"):
    built(tmp_path / "other")
  assert (tmp_path / "other" / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
  ("documents", "message"),
  [
    ([], "^documents: none"),
    ([*DOCUMENTS, ("", "a\ud800", 0)], "^documents 0 to 200: text: .* half a surrogate pair at 1"),
    ([("", "a", 256)], "^documents: mask: 256 is not allowed"),
    ([("", "a", -1)], "^documents: mask"),
    ([("", "a", True)], "^documents: mask"),
  ],
)
def test_unusable_documents_leave_nothing(tmp_path, documents, message):
  with pytest.raises(InputError, match=message):
    built(tmp_path / "c", documents)
  assert [*tmp_path.iterdir()] == []


def test_an_error_of_the_documents_is_its_own_and_leaves_nothing(tmp_path):
  def broken():
    yield from DOCUMENTS
    raise OSError("the shard")

  with pytest.raises(OSError, match="the shard"):
    built(tmp_path / "c", broken())
  assert [*tmp_path.iterdir()] == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
  script = (
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500));"
    "import errno, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    "from tests.test_stories_cache import built\n"
    f"try: built({str(tmp_path / 'c')!r})\n"
    "except ValueError as error: print(type(error).__name__, error)"
  )
  done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
  assert done.stdout.startswith("InputError cache: ") and "cannot be written (File too large)" in done.stdout
  assert [*tmp_path.iterdir()] == []


def test_a_killed_process_leaves_no_cache_and_the_next_one_tidies(tmp_path):
  script = f"""
import time
from tests.test_stories_cache import DOCUMENTS, built
def slow():
  yield from DOCUMENTS
  print("there", flush=True)
  time.sleep(60)
built({str(tmp_path / "c")!r}, slow())
"""
  process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
  assert process.stdout is not None and process.stdout.readline() == b"there\n"
  (left,) = tmp_path.iterdir()
  built(tmp_path / "other")  # another cache leaves it alone
  assert left.exists()
  folders.tidy(tmp_path / "c")  # it is locked
  assert left.exists() and not (tmp_path / "c").exists()
  process.kill()
  process.wait()
  process.stdout.close()
  assert len(built(tmp_path / "c")) == 200
  assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "other"]


def test_of_two_that_build_at_once_the_first_stays(tmp_path):
  def documents():
    yield from DOCUMENTS
    built(tmp_path / "c")
    os.utime(tmp_path / "c" / "tokens.bin", (1, 1))

  assert len(built(tmp_path / "c", documents())) == 200
  assert (tmp_path / "c" / "tokens.bin").stat().st_mtime == 1 < time.time()
  assert [path.name for path in tmp_path.iterdir()] == ["c"]
