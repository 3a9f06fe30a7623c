"""Symbols and ids of a compiled model, whatever its BOS is called."""

import functools

import numpy as np
import pytest
from tracr.compiler import compiling
from tracr.rasp import rasp

from finetune_wrappers.models import tracr_codec
from finetune_wrappers.types import InputError


@functools.cache
def compiled(bos="compiler_bos", pad="compiler_pad"):
  program = rasp.Map(lambda token: token == "a", rasp.tokens)
  return compiling.compile_rasp_to_model(program, set("abc"), 5, compiler_bos=bos, compiler_pad=pad)


def test_codec_encodes_with_bos_and_pads():
  codec = tracr_codec.codec(compiled())
  assert codec.tokens == ("a", "b", "c", "compiler_bos", "compiler_pad")
  assert codec.labels == (False, True)
  assert codec.max_seq_len == 5
  assert codec.encode("cab", length=6).tolist() == [3, 2, 0, 1, 4, 4]
  assert codec.encode("cab").tolist() == compiled().input_encoder.encode(["compiler_bos", *"cab"])
  assert codec.encode("cabca").dtype == np.int32 and codec.encode("").tolist() == [3]


def test_decode_is_the_inverse_and_drops_bos_and_pads():
  codec = tracr_codec.codec(compiled())
  for string in ("", "a", "cab", "cabca"):
    for length in (None, 6):
      assert codec.decode(codec.encode(string, length=length)) == list(string)
  for ids in ([9], [-1], [0.5], [[0]]):
    with pytest.raises(InputError, match=r"\Aids: [^\n]+ is not allowed; use 0 to 4\Z"):
      codec.decode(ids)


def test_a_model_compiled_with_another_bos_has_a_codec():
  codec = tracr_codec.codec(compiled("BOS", "PAD"))
  assert (codec.bos, codec.pad) == ("BOS", "PAD")
  ids = codec.encode("cab", length=6)
  assert [codec.tokens[i] for i in ids] == ["BOS", *"cab", "PAD", "PAD"] and codec.decode(ids) == list("cab")


@pytest.mark.parametrize("string", [["z"], ["a", "B"], [""], ["compiler_bos"], ["a", "compiler_pad"], [1], "aaaaaa"])
def test_codec_refuses_what_the_model_cannot_read(string):
  with pytest.raises(InputError, match=r"\Astring: [^\n]+\Z"):
    tracr_codec.codec(compiled()).encode(string)


@pytest.mark.parametrize(("length", "allowed"), [(3, "4 to 6"), (7, "4 to 6"), (100, "4 to 6")])
def test_a_length_that_the_string_or_the_model_does_not_have_is_refused(length, allowed):
  with pytest.raises(InputError, match=rf"\Alength: {length} is not allowed for 3 tokens; use {allowed} [^\n]+\Z"):
    tracr_codec.codec(compiled()).encode("abc", length=length)
