#!/usr/bin/env bash
# SentencePiece: a text of more than 4192 bytes on one line has no part in training.
#
# Guess: a long line is cut or split, or counts like any other.
# Instead: it is left out whole. The log warns at the first one, among 300 other lines, and counts them at the end;
#   minloglevel=2 hides both. The model of a corpus of such lines lacks their letters.
# Why it matters: in a corpus with one document a line the long documents are gone, and the vocabulary is made from the
#   short ones. Source code and books suffer first. Raise max_sentence_length, or split documents before training.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q sentencepiece==0.2.3
cd "$work"
venv/bin/python - <<'EOF'
import io
import sys

import sentencepiece

print("sentencepiece", sentencepiece.__version__)
short = [f"the cat sat on mat number {number} and a dog ran" for number in range(300)]


def pieces(repeats, **options):
  """How "zebra" is cut after training on short lines and 300 lines of that many times "zebra "."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(short + ["zebra " * repeats] * 300), model_writer=model, model_type="bpe", vocab_size=300,
    byte_fallback=True, minloglevel=2, **options,
  )
  return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).encode("zebra", out_type=str)


lost = ["▁", "<0x7A>", "e", "b", "r", "a"]
longer = {"max_sentence_length": 5000}
for repeats, options, wanted in ((698, {}, ["▁zebra"]), (699, {}, lost), (699, longer, ["▁zebra"])):
  got = pieces(repeats, **options)
  print(f"lines of {repeats * 6} bytes, {options or 'defaults'}: zebra becomes {got}")
  if got != wanted:
    sys.exit(f"changed: it was {wanted}")
EOF
