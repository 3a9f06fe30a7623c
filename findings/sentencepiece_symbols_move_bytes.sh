#!/usr/bin/env bash
# SentencePiece: a user-defined symbol moves the ids of the bytes.
#
# Guess: extra symbols are added behind the vocabulary, or at least the byte pieces stay at 3 to 258, as in Llama.
# Instead: user-defined symbols stand before the byte pieces, right after <unk>, <s> and </s>. With two symbols, byte b
#   is b + 5. The library itself stays consistent.
# Why it matters: programs that read a vocabulary and compute the id of an unknown byte as b + 3, as small inference
#   programs for Llama do, then encode every character outside the vocabulary wrongly, and plain text still works.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q sentencepiece==0.2.3
cd "$work"
venv/bin/python - <<'EOF'
import io
import random
import sys

import sentencepiece as spm

print("sentencepiece", spm.__version__)
draw = random.Random(0)
text = [" ".join(draw.choice(["alpha", "beta", "gamma", "delta"]) for _ in range(8)) for _ in range(200)]


def trained(symbols):
  model = io.BytesIO()
  spm.SentencePieceTrainer.train(
    sentence_iterator=iter(text), model_writer=model, vocab_size=280, model_type="bpe", byte_fallback=True,
    user_defined_symbols=symbols, minloglevel=2,
  )
  return spm.SentencePieceProcessor(model_proto=model.getvalue())


for symbols, offset in (([], 3), (["<A>", "<B>"], 5)):
  model = trained(symbols)
  ids = model.encode("é")[-2:]
  print(f"symbols {symbols}: byte 0 has id {model.piece_to_id('<0x00>')}, é is {ids}, bytes {list('é'.encode())}")
  if model.piece_to_id("<0x00>") != offset or ids != [byte + offset for byte in "é".encode()]:
    sys.exit(f"changed: byte b had the id b + {offset}")
EOF
