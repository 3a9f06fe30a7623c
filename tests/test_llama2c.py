"""Files of llama2.c: against a reader and a forward pass in loops."""

import dataclasses
import struct

import numpy as np
import pytest

from finetune_wrappers.models.formats import llama2c
from finetune_wrappers.models.llama import Llama
from finetune_wrappers.types import InputError
from tests.llama2c_by_hand import SHAPES, TOKENS, Reader, model_of, ours


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("name", SHAPES)
def test_an_independent_reader_gives_the_same_logits(tmp_path, name, version):
  model, params = model_of(name)
  llama2c.save(tmp_path / "model.bin", model, params, version=version)
  reader = Reader((tmp_path / "model.bin").read_bytes())
  assert (reader.version, reader.shared) == (version, model.config.tied)
  again, found = llama2c.load(tmp_path / "model.bin")
  assert again == model
  wanted = reader.logits(TOKENS)
  assert wanted.std() > 1
  np.testing.assert_allclose(ours(again, found), wanted, atol=1e-4, rtol=1e-4)
  if version < 2:  # nothing was rounded
    np.testing.assert_allclose(ours(model, params), wanted, atol=1e-4, rtol=1e-4)


def test_the_angles_of_version_0_are_tables_by_position(tmp_path):
  model, params = model_of("tied, grouped")
  llama2c.save(tmp_path / "model.bin", model, params, version=0)
  reader = Reader((tmp_path / "model.bin").read_bytes())
  angles = np.outer(range(6), [1, 1 / 100])
  np.testing.assert_allclose(reader.cos, np.cos(angles), atol=1e-6)
  np.testing.assert_allclose(reader.sin, np.sin(angles), atol=1e-6)


@pytest.mark.parametrize(
  ("name", "largest", "group"), [("tied, grouped", 64, 8), ("odd hidden", 16, 4), ("untied", 6, 1)]
)
def test_groups_divide_width_and_hidden(tmp_path, name, largest, group):
  model, params = model_of(name)
  llama2c.save(tmp_path / "model.bin", model, params, version=2, group_size=largest)
  assert Reader((tmp_path / "model.bin").read_bytes()).group == group


def test_int8_is_the_nearest_of_255_steps(tmp_path):
  model, params = model_of("untied")
  params["blocks_0"]["mlp"]["down"]["kernel"][:8, 0] = 0  # a group without a scale
  llama2c.save(tmp_path / "model.bin", model, params, version=2)
  _, found = llama2c.load(tmp_path / "model.bin")
  for path in (("token_embed", "embedding"), ("blocks_0", "mlp", "down", "kernel"), ("head", "kernel")):
    old, new = params, found
    for name in path:
      old, new = old[name], new[name]
    old, new = (array if path[-1] == "embedding" else array.T for array in (old, new))
    groups, errors = np.abs(old).reshape(-1, 8), np.abs(old - new).reshape(-1, 8)
    steps = groups.max(1, keepdims=True) / 127
    assert (errors <= steps / 2 * 1.001).all() and errors.max() > steps.max() / 8
  np.testing.assert_array_equal(found["blocks_0"]["norm_1"]["scale"], params["blocks_0"]["norm_1"]["scale"])


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_file_that_was_read_is_written_the_same(tmp_path, version):
  model, params = model_of("untied", kv_heads=2)
  llama2c.save(tmp_path / "a.bin", model, params, version=version)
  llama2c.save(tmp_path / "b.bin", *llama2c.load(tmp_path / "a.bin"), version=version)
  assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


@pytest.mark.parametrize(
  ("changes", "settings", "message"),
  [
    ({"rope_theta": 500.0}, {}, "rope_theta: 500.0 is not allowed; use 10000.0"),
    ({"norm_eps": 1e-6}, {}, "norm_eps: 1e-06 is not allowed; use 1e-05"),
    ({}, {"version": 3}, "version: 3 is not a whole number from 0 to 2"),
    ({}, {"group_size": 0}, "group_size: 0"),
    ({"blocks": 1}, {}, "params: blocks_1/attn/key/kernel is not in a model"),
  ],
)
def test_what_a_bin_cannot_hold(tmp_path, changes, settings, message):
  model, params = model_of("untied")
  with pytest.raises(InputError) as error:
    llama2c.save(tmp_path / "x.bin", Llama(dataclasses.replace(model.config, **changes)), params, **settings)
  assert message in str(error.value) and not list(tmp_path.iterdir())


def test_int8_has_no_infinity(tmp_path):
  model, params = model_of("untied")
  params["head"]["kernel"][0, 0] = np.inf
  with pytest.raises(InputError, match="params: head/kernel is not finite"):
    llama2c.save(tmp_path / "x.bin", model, params, version=2)


def changed(data, at, *numbers):
  return data[:at] + struct.pack(f"<{len(numbers)}i", *numbers) + data[at + 4 * len(numbers) :]


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda data, at: data[:-1], "bytes, but its header asks for"),
    (lambda data, at: data + b"\0", "bytes, but its header asks for"),
    (lambda data, at: data[:20], "20 bytes; the header alone has"),
    (lambda data, at: b"", "bytes; the header alone has"),
    (lambda data, at: changed(data, at + 20, 10**6), "bytes, but its header asks for"),
    (lambda data, at: changed(data, at, 2**16), "bytes, but its header asks for"),
    (lambda data, at: changed(data, at + 8, 999), "bytes, but its header asks for"),
    (lambda data, at: changed(data, at, 2**31 - 1), "width: 2147483647 is not"),
    (lambda data, at: changed(data, at, -16), "width: -16 is not"),
    (lambda data, at: changed(data, at + 12, 3), "width: 16 is not"),
    (lambda data, at: changed(data, at + 16, 0), "kv_heads: 0 is not"),
    (lambda data, at: changed(data, at + 24, 0), "length: 0 is not"),
  ],
)
def test_damaged_bins(tmp_path, version, damage, message):
  model, params = model_of("tied, grouped")
  path = tmp_path / "model.bin"
  llama2c.save(path, model, params, version=version)
  path.write_bytes(damage(path.read_bytes(), 8 if version else 0))
  with pytest.raises(InputError) as error:
    llama2c.load(path)
  assert str(error.value).startswith(f"{path}: ") and message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("at", "number", "message"),
  [
    (4, 3, "version: 3 is not one of 0, 1, 2"),
    (36, 2, "shared classifier: 2"),
    (37, 0, "group size: 0"),
    (37, 3000, ""),
  ],
)
def test_damaged_headers_of_version_2(tmp_path, at, number, message):
  model, params = model_of("tied, grouped")
  path = tmp_path / "model.bin"
  llama2c.save(path, model, params, version=2)
  data = path.read_bytes()
  path.write_bytes(data[:36] + bytes([number]) + data[37:] if at == 36 else changed(data, at, number))
  with pytest.raises(InputError) as error:
    llama2c.load(path)
  assert str(error.value).startswith(f"{path}: ") and (message or f"group size: {number}") in str(error.value)


def test_a_missing_bin(tmp_path):
  with pytest.raises(InputError, match=r"x\.bin: cannot be read \(No such file or directory\)"):
    llama2c.load(tmp_path / "x.bin")
