"""tokenizer.bin: against bytes written by hand, sentencepiece, and llama2.c's encoding in loops."""

import functools
import io
import struct

import numpy as np
import pytest
import sentencepiece

from finetune_wrappers.models.formats import llama2c_tokenizer as tokens
from finetune_wrappers.types import InputError

TEXTS = [
  "Once upon a time there was a little dog.",
  "The dog had a red ball; the ball was 12 steps away.",
  "She said:  two  spaces, and a new line\nhere.",
  "caf\u00e9 \u4f60\u597d \U0001f600",
  " a",
]
FIRST = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))


@functools.cache
def trained():
  """(pieces, scores, processor) of a model that was trained like Llama's."""
  file = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXTS * 3), model_writer=file, vocab_size=330, model_type="bpe", byte_fallback=True,
    split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.99,
    minloglevel=2,
  )  # fmt: skip
  model = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
  ids = range(model.get_piece_size())
  return tuple(map(model.id_to_piece, ids)), [model.get_score(i) for i in ids], model


def read(data, count):
  """[(score, bytes)] of a tokenizer.bin, and its first number."""
  file, found = io.BytesIO(data), []
  (longest,) = struct.unpack("<I", file.read(4))
  for _ in range(count):
    score, size = struct.unpack("<fI", file.read(8))
    found.append((score, file.read(size)))
  assert not file.read()
  return longest, found


def encode(entries, text):
  """Ids by llama2.c: characters, or their bytes, then the merge of the highest score again and again."""
  ids = {piece: i for i, (_, piece) in enumerate(entries)}
  found = [ids[b" "]] if text else []
  for character in text:
    raw = character.encode()
    found += [ids[raw]] if raw in ids else [byte + 3 for byte in raw]
  while True:
    merges = []
    for at in range(len(found) - 1):
      merged = ids.get(entries[found[at]][1] + entries[found[at + 1]][1])
      if merged is not None:
        merges.append((entries[merged][0], -at, merged))
    if not merges:
      return found
    _, at, merged = max(merges)
    found[-at : -at + 2] = [merged]


def test_the_bytes_by_hand(tmp_path):
  tokens.save_tokenizer(tmp_path / "t.bin", [*FIRST, "\u2581", "\u2581\u00e9"], [0] * 259 + [-1.5, -2])
  data = (tmp_path / "t.bin").read_bytes()
  assert data.startswith(
    b"\6\0\0\0" + b"\0\0\0\0\5\0\0\0<unk>" + b"\0\0\0\0\5\0\0\0\n<s>\n" + b"\0\0\0\0\6\0\0\0\n</s>\n"
  )
  assert data.endswith(struct.pack("<fI", -1.5, 1) + b" " + struct.pack("<fI", -2, 3) + b" \xc3\xa9")


def test_pieces_and_scores_come_back(tmp_path):
  pieces, scores, _ = trained()
  tokens.save_tokenizer(tmp_path / "t.bin", pieces, scores)
  longest, entries = read((tmp_path / "t.bin").read_bytes(), len(pieces))
  assert longest == max(len(piece) for _, piece in entries)
  found, again = tokens.load_tokenizer(tmp_path / "t.bin", len(pieces))
  assert found == pieces
  np.testing.assert_array_equal(again, np.array(scores, np.float32))


@pytest.mark.parametrize("text", TEXTS)
def test_llama2c_encodes_as_sentencepiece(tmp_path, text):
  pieces, scores, model = trained()
  tokens.save_tokenizer(tmp_path / "t.bin", pieces, scores)
  _, entries = read((tmp_path / "t.bin").read_bytes(), len(pieces))
  again = sentencepiece.SentencePieceProcessor(
    model_proto=tokens.sentencepiece_model(*tokens.load_tokenizer(tmp_path / "t.bin", len(pieces)))
  )
  assert encode(entries, text) == again.encode(text) == model.encode(text)
  assert again.decode(again.encode(text)) == text
  assert (again.bos_id(), again.eos_id(), again.unk_id()) == (1, 2, 0)


@pytest.mark.parametrize(
  ("pieces", "scores", "message"),
  [
    (["<pad>", *FIRST], [0] * 260, "pieces: id 0 is '<pad>', not '<unk>'; llama2.c needs the ids of Llama"),
    ([*FIRST[:3], "<sep>", *FIRST[3:]], [0] * 260, "pieces: id 3 is '<sep>', not '<0x00>'"),
    (FIRST[:100], [0] * 100, "pieces: id 100 is missing"),
    (FIRST, [0] * 258, "scores: shape [258] is not [259]"),
    ([*FIRST, "\ud800"], [0] * 260, "id 259, is no text"),
    ([*FIRST, ""], [0] * 260, "id 259, is empty or has a byte 0"),
    ([*FIRST, "a\0"], [0] * 260, "id 259, is empty or has a byte 0"),
  ],
)
def test_what_a_tokenizer_must_not_have(tmp_path, pieces, scores, message):
  with pytest.raises(InputError) as error:
    tokens.save_tokenizer(tmp_path / "t.bin", pieces, scores)
  assert message in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("damage", "vocab_size", "message"),
  [
    (lambda data: data[:-1], 260, "cut short in piece 259 of 260"),
    (lambda data: data[:50], 260, "cut short in piece 3 of 260"),
    (lambda data: b"", 260, "cut short in piece 0 of 260"),
    (lambda data: data + b"\0", 260, "1 bytes follow piece 259"),
    (lambda data: data, 259, "follow piece 258; is vocab_size 259 right?"),
    (lambda data: data, 261, "cut short in piece 260 of 261"),
    (lambda data: data, 0, "vocab_size: 0"),
    (lambda data: b"\7" + data[1:], 260, "longest piece: 7 bytes in the header, 6 in fact"),
    (lambda data: data[:8] + b"\xff\xff\xff\xff" + data[12:], 260, "cut short in piece 0"),
    (lambda data: data[:8] + b"\xff\xff\xff\x7f" + data[12:], 260, "cut short in piece 0"),
    (lambda data: data.replace(b"<unk>", b"<\xffnk>"), 260, "piece 0 is no UTF-8"),
    (lambda data: data.replace(b"<0x00>", b"<0x99>"), 260, "id 3 is '<0x99>', not '<0x00>'"),
  ],
)
def test_damaged_files(tmp_path, damage, vocab_size, message):
  path = tmp_path / "t.bin"
  tokens.save_tokenizer(path, [*FIRST, "\u2581"], [0] * 260)
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(InputError) as error:
    tokens.load_tokenizer(path, vocab_size)
  assert message in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
  with pytest.raises(InputError, match=r"t\.bin: cannot be read"):
    tokens.load_tokenizer(tmp_path / "t.bin", 300)
