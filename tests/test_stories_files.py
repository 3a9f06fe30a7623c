"""Files of stories: against the whole file at once, at every cut of the stream, and what bad files say."""

import dataclasses
import json
import tracemalloc

import pytest

from finetune_wrappers.tasks.stories import json_stream, story_files
from finetune_wrappers.tasks.stories.maker import StoryMaker
from finetune_wrappers.tasks.stories.records import END, Record
from finetune_wrappers.tasks.stories.story_files import read_records, write_json, write_text
from finetune_wrappers.types import InputError

RECORDS = [StoryMaker().record("train", index) for index in range(300)]
NAMELESS = [dataclasses.replace(record, source="") for record in RECORDS]
IN_JSON = [dataclasses.replace(record, sentence="") for record in RECORDS]
ODD = Record(story="A\u2028B\x0b\u00e9\U0001f600", words=("caf\u00e9",), features=("Twist",))


def shard(*items):
  return json.dumps(items)


def item(**changed):
  return {"story": "\n\nA.", "instruction": {"prompt:": "", "words": [], "features": []}, "summary": "", **changed}


def test_text_files_come_back(tmp_path):
  write_text(tmp_path / "a.txt", [*RECORDS, ODD])
  found = read_records(tmp_path / "a.txt")
  assert list(found) == [*NAMELESS, ODD]
  assert (found.report.read, found.report.dropped) == (301, {})
  assert (tmp_path / "a.txt").read_bytes().count(END.encode()) == 301
  assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_json_shards_come_back(tmp_path):
  write_json(tmp_path / "a.json", [*IN_JSON, ODD])
  assert list(read_records(tmp_path / "a.json")) == [*IN_JSON, ODD]
  values = json.loads((tmp_path / "a.json").read_text())
  assert values[0]["story"] == RECORDS[0].story and values[0]["source"] == "made"
  assert values[0]["instruction"]["features"] == [*RECORDS[0].features]


def test_a_record_of_the_release_by_hand(tmp_path):
  (tmp_path / "a.json").write_text(
    '[{"story": "\\n\\nLily and Ben are friends.", "instruction": {"prompt:": "Write", "words": ["hang", "cute"],'
    ' "features": ["Twist", "Dialogue"]}, "summary": "\\n\\nLily hangs.", "source": "GPT-4"}]'
  )
  assert list(read_records([tmp_path / "a.json"])) == [
    Record(story="Lily and Ben are friends.", words=("hang", "cute"), features=("Dialogue", "Twist"),
           summary="Lily hangs.", source="GPT-4")
  ]  # fmt: skip


def test_several_files_are_one_stream(tmp_path):
  write_text(tmp_path / "b.txt", RECORDS[:5])
  write_json(tmp_path / "a.json", IN_JSON[5:9])
  assert list(read_records([tmp_path / "b.txt", tmp_path / "a.json"])) == [*NAMELESS[:5], *IN_JSON[5:9]]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 13, 14, 64])
def test_every_cut_of_the_stream_gives_the_same(tmp_path, monkeypatch, chunk):
  write_text(tmp_path / "a.txt", [ODD, *RECORDS[:4]])
  values = [item(), 12, item(story="\u00e9\U0001f600"), "text", item(words=None), [1, [2]], -1.5e3, None, item()]
  for name, text in (("a", json.dumps(values, ensure_ascii=False, indent=1)), ("b", json.dumps(values))):
    (tmp_path / f"{name}.json").write_text(text)
  monkeypatch.setattr(story_files, "_CHUNK", chunk)
  monkeypatch.setattr(json_stream, "_CHUNK", chunk)
  assert list(read_records(tmp_path / "a.txt")) == [ODD, *NAMELESS[:4]]
  for name in "ab":
    with (tmp_path / f"{name}.json").open("rb") as file:
      assert [value for _, value in json_stream.stream_list(file, name="x")] == values


def test_text_after_bom_and_without_last_newline(tmp_path):
  (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfStory: A." + END.encode() + b"Story: B." + END.encode())
  assert [record.story for record in read_records(tmp_path / "a.txt")] == ["A.", "B."]
  (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + shard(item()).encode())
  assert [record.story for record in read_records(tmp_path / "a.json")] == ["A."]


def test_malformed_documents_are_dropped_with_their_line(tmp_path):
  path = tmp_path / "a.txt"
  bad = [b"Summary: A.\n", b"Story:\n", b"Story: \xff\n", b"Summary: B.\n", b"Story: " + b"a" * 2**21 + b"\n"]
  good = b"Story:\nA\xe2\x80\xa8B\x0bC\n"
  texts = [good, *bad, good]
  path.write_bytes(b"".join(text + END.encode() + b"\n" for text in texts) + b"Story: cut off")
  found = read_records(path, bad_share=1)
  assert [record.story for record in found] == ["A\u2028B\x0bC"] * 2
  report = found.report
  assert report.dropped == {
    "no story": 2, "empty story": 1, "not UTF-8": 1, "more than 2^20 bytes": 1, f"no {END} after it": 1
  }  # fmt: skip
  assert {reason: place.rpartition(":")[2] for reason, place in report.first.items()} == {
    "no story": "4", "empty story": "6", "not UTF-8": "8", "more than 2^20 bytes": "12", f"no {END} after it": "17"
  }  # fmt: skip
  assert report.lines()[0] == f"2 dropped: no story; first at {path}:4"


def test_malformed_items_are_dropped_with_line_and_number(tmp_path):
  path = tmp_path / "a.json"
  no_story = item()
  del no_story["story"]
  values = [
    item(), no_story, item(story=None), item(story=" \n"), item(story=3), item(summary=["a"]), item(instruction="a"),
    item(instruction={"features": "Twist"}), item(instruction={"features": ["Magic"]}),
    item(instruction={"words": [1]}), item(story="\ud800"), item(story=f"a{END}"), 3, item(instruction=None),
    item(story="B."),
  ]  # fmt: skip
  path.write_text(json.dumps(values, indent=1))
  found = read_records(path, bad_share=1)
  assert [record.story for record in found] == ["A.", "A.", "B."]
  assert found.report.dropped["no story"] == 2 and sum(found.report.dropped.values()) == 12
  assert set(found.report.dropped) >= {
    "empty story", "story is no text", "summary is no text", "instruction is no object", "features is no list of texts",
    "words is no list of texts", "not UTF-8", "no JSON object", f"{END} inside a text",
  }  # fmt: skip
  text = path.read_text().split("\n")
  line = [number for number, content in enumerate(text, 1) if content == " {"][1]
  assert found.report.first["no story"] == f"{path}:{line} (item 2)"


def test_a_byte_that_is_no_utf8_spoils_one_item(tmp_path):
  (tmp_path / "a.json").write_bytes(shard(item(), item(story="XX"), item()).encode().replace(b"XX", b"\xff\xc3"))
  found = read_records(tmp_path / "a.json", bad_share=0.5)
  assert len(list(found)) == 2 and found.report.dropped == {"not UTF-8": 1}


def test_too_many_malformed_records_are_an_error(tmp_path):
  path = tmp_path / "a.txt"
  good, bad = f"Story: A.\n{END}\n", f"Story:\n{END}\n"
  path.write_text(bad + good * 99)
  assert len(list(read_records(path))) == 99
  path.write_text(bad * 2 + good * 98)
  with pytest.raises(InputError, match=r"^bad_share: 2 of 100 records .* 0.01; 2 dropped: empty story; .*a.txt:1$"):
    list(read_records(path))
  path.write_text(good * 980 + bad * 20 + good * 5000)  # judged early: the rest is not read
  found = read_records(path)
  with pytest.raises(InputError, match="^bad_share: 20 of 1000 "):
    list(found)
  with pytest.raises(InputError, match="^bad_share: 2 is not a number"):
    read_records(path, bad_share=2)


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("a.json", "", "holds no records"),
    ("a.json", " [ ] ", "holds no records"),
    ("a.txt", "", "holds no records"),
    ("a.txt", " \n\n", "holds no records"),
    ("a.json", '{"story": "A."}', r":1 \(item 0\): no JSON list"),
    ("a.json", '[{"story": "A."}', r":1 \(item 1\): the file ends inside the list"),
    ("a.json", '[{"story": "A."},\n', r":2 \(item 2\): no JSON"),
    ("a.json", '[{"story": "A."}\n{"story": "A."}]', r":2 \(item 1\): '{' where , or \] belongs"),
    ("a.json", '[{"story": "A', r":1 \(item 1\): no JSON"),
    ("a.json", '[{"story": "A."}] x', r":1 \(item 1\): text after the end"),
    ("a.json", "[" * 100_000, r":1 \(item 1\): no JSON \(nested too deeply\)"),
    ("a.json", '["' + "a" * 2**21 + '"]', r":1 \(item 1\): no JSON value within"),
    ("a.json", "[" + "9" * 10_000 + "]", r":1 \(item 1\): no JSON"),
  ],
)
def test_broken_files_are_one_line(tmp_path, name, text, message):
  (tmp_path / name).write_text(text)
  with pytest.raises(InputError, match=f"^paths: .*{name}.*{message}") as error:
    list(read_records(tmp_path / name, bad_share=1))
  assert "\n" not in str(error.value)


def test_paths_that_cannot_be_read(tmp_path):
  (tmp_path / "folder.txt").mkdir()
  for paths, message in (
    ([], "paths: .* at least one file"),
    (tmp_path / "a.txt", "paths: .*a.txt is not there"),
    (tmp_path / "a.csv", "paths: .*a.csv' is not allowed; use files that end in .txt or .json"),
    (tmp_path / "folder.txt", "paths: .*folder.txt is a folder"),
  ):
    with pytest.raises(InputError, match=f"^{message}"):
      read_records(paths)


def test_memory_is_flat(tmp_path):
  text = "".join(f"Story: {number} {'a ' * 400}\n{END}\n" for number in range(500))
  (tmp_path / "a.txt").write_text(text * 40)
  values = json.dumps([item(story="a " * 400)] * 500)[1:-1]
  (tmp_path / "a.json").write_text(f"[{', '.join([values] * 40)}]")
  for name in ("a.txt", "a.json"):
    assert (tmp_path / name).stat().st_size > 15e6
    tracemalloc.start()
    assert sum(1 for _ in read_records(tmp_path / name)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_what_the_files_cannot_carry_is_not_written(tmp_path):
  (tmp_path / "a.txt").write_text("old")
  for record in (
    Record(story=f"a{END}"), Record(story=""), Record(story="A.\nSummary: B."), Record(story="A.", words=("a, b",)),
    Record(story="\ud800"), Record(story="A.", summary="a\nb"), Record(story=" A."),
  ):  # fmt: skip
    with pytest.raises(InputError, match="^records: item 2 cannot be written as text"):
      write_text(tmp_path / "a.txt", [ODD, record])
  assert (tmp_path / "a.txt").read_text() == "old"
  with pytest.raises(InputError, match="^records: item 1 cannot be written as JSON"):
    write_json(tmp_path / "a.json", [Record(story="A.", sentence="A.")])
  assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
