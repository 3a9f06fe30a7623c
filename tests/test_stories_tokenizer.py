"""The stories' tokenizer: texts come back exactly, ids are Llama's, and training is the same everywhere."""

import functools
import io

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from finetune_wrappers.tasks.stories.tokenizer import StoryTokenizer, train_tokenizer
from finetune_wrappers.types import InputError

WORDS = (
  *("once", "upon", "a", "time", "there", "was", "little", "girl", "named", "Lily", "who", "had", "red", "ball", "and"),
  *("12", "cats", "\u00e9t\u00e9"),
)
TEXTS = [" ".join(WORDS[(7 * i + j * j) % len(WORDS)] for j in range(9)) + ".\nThe end." for i in range(300)]


@functools.cache
def trained():
  return train_tokenizer(TEXTS, vocab_size=400)


def foreign(**options):
  """A model file by sentencepiece itself."""
  kinds = {"model_type": "bpe", "vocab_size": 400, "byte_fallback": True, "normalization_rule_name": "identity"}
  found, lines = io.BytesIO(), [line for text in TEXTS for line in text.split("\n")]
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines), model_writer=found, minloglevel=2, **kinds | options
  )
  return found.getvalue()


def naive(tokenizer, ids):
  """Text of ids by their pieces, one after the other."""
  data = b""
  for i in ids.tolist():
    data += bytes([i - 3]) if 3 <= i < 259 else tokenizer.pieces[i].replace("\u2581", " ").encode()
  return data.decode()


any_text = st.text(st.characters(codec="utf-8"), max_size=60)
ODD = (
  *("\n", "\r", "\t", "\0", "\x0b", "\u2028", " ", "  ", "\u3000", "\ufeff", "\u2581", "\u2581\u2581", "\u2585"),
  *(
    "\U0001f600",
    "\u200d",
    "e\u0301",
    "\ufb01",
    "<s>",
    "</s>",
    "<unk>",
    "<0x41>",
    "<0x0A>",
    "<|endoftext|>",
    "</",
    "|",
  ),
  *("once", "Lily", "12", "."),
)
odd_text = st.lists(st.sampled_from(ODD), max_size=12).map("".join)


@given(any_text | odd_text)
def test_every_text_comes_back(text):
  tokenizer = trained()
  ids = tokenizer.encode(text)
  assert ids.dtype == np.uint16 and (ids >= 3).all()
  assert tokenizer.decode(ids) == text
  assert (naive(tokenizer, ids).removeprefix(" ") if text[:1] != "\u2581" else naive(tokenizer, ids)) == text


@given(any_text | odd_text, any_text | odd_text)
def test_a_document_is_its_text_and_may_be_cut_where_the_story_starts(instruction, story):
  tokenizer = trained()
  ((ids, start),) = tokenizer.documents([(instruction, story)])
  before = instruction + "\n" if instruction else ""
  assert ids.dtype == np.uint16 and (ids[0], ids[-1]) == (1, 2)
  assert ids[1:-1].tolist() == tokenizer.encode(before + story).tolist()
  assert ids[:start].tolist() == tokenizer.prompt(instruction).tolist()
  assert tokenizer.decode(ids) == before + story
  assert tokenizer.decode(ids[start:], continues=bool(instruction)) == story


def test_ids_are_those_of_llama():
  tokenizer = trained()
  assert tokenizer.pieces[:3] == ("<unk>", "<s>", "</s>") and (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (1, 2, 2)
  assert tokenizer.encode("\u2602").tolist()[-3:] == [3 + byte for byte in "\u2602".encode()]
  assert tokenizer.encode("a\n").tolist()[-1] == 13 and tokenizer.vocab_size == 400
  assert np.array_equal(tokenizer.scores[259:], -np.arange(400 - 259))


@pytest.mark.parametrize("text", ["once upon a time", "a  b", " x ", "the 12 cats", ""])
def test_plain_text_is_encoded_as_the_library_does(text):
  library = sentencepiece.SentencePieceProcessor(model_proto=trained().proto)
  assert trained().encode(text).tolist() == library.encode(text)
  assert library.decode(trained().encode(text).tolist()) == text


def test_digits_are_split_and_no_piece_crosses_a_line():
  pieces = trained().pieces[259:]
  assert all(len(piece.strip("\u2581")) == 1 for piece in pieces if any(c.isdigit() for c in piece))
  assert not any("\n" in piece or ".T" in piece for piece in pieces)


def test_training_is_the_same_each_time_and_threads_change_only_bytes(tmp_path):
  again = train_tokenizer(iter(TEXTS), vocab_size=400, path=tmp_path / "a" / "tokenizer.model")
  assert again.proto == trained().proto
  read = StoryTokenizer.load(tmp_path / "a" / "tokenizer.model")
  assert (
    read.digest == trained().digest
    and read.exact
    and [p.name for p in (tmp_path / "a").iterdir()] == ["tokenizer.model"]
  )
  options = {"remove_extra_whitespaces": False, "split_digits": True, "character_coverage": 1.0}
  one, two = (foreign(num_threads=threads, **options) for threads in (1, 2))
  assert one != two and {StoryTokenizer.from_bytes(proto).digest for proto in (one, two)} == {trained().digest}


def test_the_digest_tells_tokenizers_apart():
  options = {"split_digits": True, "character_coverage": 1.0}
  drops = StoryTokenizer.from_bytes(foreign(**options))  # the same pieces, but doubled spaces are dropped
  assert drops.pieces == trained().pieces and not drops.exact
  no_space = StoryTokenizer.from_bytes(foreign(**options, remove_extra_whitespaces=False, add_dummy_prefix=False))
  assert no_space.exact and no_space.decode(no_space.encode(" once \u2581 a")) == " once \u2581 a"
  smaller = train_tokenizer(TEXTS, vocab_size=390)
  assert len({tokenizer.digest for tokenizer in (trained(), drops, no_space, smaller)}) == 4


def test_long_texts_and_marks_take_part_in_training():
  tokenizer = train_tokenizer([*TEXTS, "zebra " * 2000, "okapi\u2585\u2581\0gnu\tokapi gnu " * 300], vocab_size=420)
  assert {"\u2581zebra", "okapi", "gnu"} <= {*tokenizer.pieces} | {piece.strip("\u2581") for piece in tokenizer.pieces}
  assert tokenizer.exact


def test_no_more_text_is_read_than_asked_for():
  read = []
  train_tokenizer((read.append(text) or text for text in TEXTS * 2), vocab_size=290, most_bytes=5000)
  assert sum(len(text.encode()) for text in read[:-1]) < 5000 <= sum(len(text.encode()) for text in read)


@pytest.mark.parametrize("ids", [[-1], [400], [[3]], [3.0], [True]])
def test_ids_outside_the_vocabulary_are_refused(ids):
  with pytest.raises(InputError, match=r"^ids: .*from 0 to 399$"):
    trained().decode(ids)


def test_bytes_that_are_no_text_are_shown_as_such():
  assert trained().decode([3 + 0xFF, 3 + ord("a")]) == "\ufffda" and trained().decode([]) == "" == trained().decode(
    [1, 2, 0]
  )


@pytest.mark.parametrize(
  ("vocab_size", "texts", "message"),
  [
    (259, TEXTS, "vocab_size: 259 is not a whole number from 260 to 65536"),
    (2**16 + 1, TEXTS, "vocab_size: 65537 is not a whole number from 260 to 65536"),
    (60000, TEXTS, "vocab_size: 60000 is more than the texts give; use at most "),
    (262, TEXTS, "vocab_size: 262 has no room for each character; use at least "),
    (400, [], "texts: empty"),
    (400, ["", "\n \n"], "texts: empty"),
    (400, ["a\ud800"], "text: 'a\\ud800' has half a surrogate pair at 1"),
  ],
)
def test_unusable_texts_are_one_line(vocab_size, texts, message):
  with pytest.raises(InputError) as error:
    train_tokenizer(texts, vocab_size=vocab_size)
  assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("vocab_size", [262, 60000])
def test_the_number_that_the_message_gives_is_the_bound(vocab_size):
  with pytest.raises(InputError) as error:
    train_tokenizer(TEXTS, vocab_size=vocab_size)
  bound = int(str(error.value).split("use at ")[1].split()[1].rstrip(","))
  assert train_tokenizer(TEXTS, vocab_size=bound).vocab_size == bound
  with pytest.raises(InputError):
    train_tokenizer(TEXTS, vocab_size=bound + (1 if bound < 60000 and vocab_size == 60000 else -1))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"user_defined_symbols": ["<A>"]}, "byte b at id b \\+ 3"),
    ({"bos_id": 2, "eos_id": 1}, "unk, bos and eos"),
    ({"normalization_rule_name": "nmt_nfkc"}, "newlines"),
  ],
)
def test_files_with_other_ids_are_refused(options, message):
  with pytest.raises(InputError, match=message):
    StoryTokenizer.from_bytes(foreign(**options))


@pytest.mark.parametrize("data", [b"", b"junk", b"\x80\x04N."])
def test_files_that_are_no_model_are_refused(tmp_path, data):
  (tmp_path / "t.model").write_bytes(data)
  with pytest.raises(InputError, match=r"^tokenizer: .*t\.model is no sentencepiece model, or cut short$"):
    StoryTokenizer.load(tmp_path / "t.model")


def test_files_cut_short_are_refused_and_missing_ones_named(tmp_path):
  for size in (10, len(trained().proto) // 2, len(trained().proto) - 1):
    with pytest.raises(InputError, match="^tokenizer: "):
      StoryTokenizer.from_bytes(trained().proto[:size])
  with pytest.raises(InputError, match=r"none\.model cannot be read \(No such file or directory\)"):
    StoryTokenizer.load(tmp_path / "none.model")
