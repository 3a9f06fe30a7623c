"""Files of llama2.c: against a reader and a forward pass in loops, written from the format's description."""

import dataclasses
import math
import pathlib
import struct
import tempfile

import numpy as np
import pytest

from finetune_wrappers.models.formats import llama2c
from finetune_wrappers.models.llama import Llama
from finetune_wrappers.models.llama_layers import LlamaConfig
from finetune_wrappers.types import InputError
from tests.test_huggingface import scaled

CONFIG = LlamaConfig(vocab_size=11, length=6, blocks=2, heads=4, kv_heads=2, width=16, hidden=24, tied=True)
TOKENS = [3, 1, 10, 3, 0, 7]
SHAPES = {
  "tied, grouped": {},
  "untied": {"tied": False, "kv_heads": 4},
  "one key": {"kv_heads": 1, "tied": False},
  "odd hidden": {"hidden": 20},
}


def model_of(name, **changes):
  return scaled(dataclasses.replace(CONFIG, **(SHAPES[name] | changes)))


class Reader:
  """Reads a `.bin` from front to back, number by number."""

  def __init__(self, data):
    self.data, self.at = data, 0
    self.version = 0
    if self.data[:4] == struct.pack("<I", 0x616B3432):
      self.at = 4
      self.version = self.ints(1)[0]
    sizes = self.ints(7)
    self.dim, self.hidden, self.layers, self.heads, self.kv_heads, self.vocab, self.length = sizes
    self.shared, self.group = self.vocab > 0, None
    self.vocab = abs(self.vocab)
    if self.version:
      self.shared = self.data[self.at] == 1
      self.group = struct.unpack_from("<i", self.data, self.at + 1)[0] if self.version == 2 else None
      self.at = 256
    narrow = self.dim * self.kv_heads // self.heads
    wide = {"wq": (self.dim, self.dim), "wk": (narrow, self.dim), "wv": (narrow, self.dim), "wo": (self.dim, self.dim)}
    wide |= {"w1": (self.hidden, self.dim), "w2": (self.dim, self.hidden), "w3": (self.hidden, self.dim)}
    many = range(self.layers)
    if self.version == 0:
      self.embedding = self.matrix(self.vocab, self.dim)
      self.norm_1 = [self.floats(self.dim) for _ in many]
      self.w = {name: [self.matrix(*wide[name]) for _ in many] for name in ("wq", "wk", "wv", "wo")}
      self.norm_2 = [self.floats(self.dim) for _ in many]
      self.w |= {name: [self.matrix(*wide[name]) for _ in many] for name in ("w1", "w2", "w3")}
      self.norm = self.floats(self.dim)
      self.cos = self.matrix(self.length, self.dim // self.heads // 2)
      self.sin = self.matrix(self.length, self.dim // self.heads // 2)
    else:
      self.norm_1 = [self.floats(self.dim) for _ in many]
      self.norm_2 = [self.floats(self.dim) for _ in many]
      self.norm = self.floats(self.dim)
      self.embedding = self.matrix(self.vocab, self.dim)
      self.w = {name: [self.matrix(*wide[name]) for _ in many] for name in wide}
    self.head = self.embedding if self.shared else self.matrix(self.vocab, self.dim)
    assert self.at == len(data)

  def ints(self, n):
    self.at += 4 * n
    return struct.unpack_from(f"<{n}i", self.data, self.at - 4 * n)

  def floats(self, n):
    self.at += 4 * n
    return list(struct.unpack_from(f"<{n}f", self.data, self.at - 4 * n))

  def matrix(self, rows, columns):
    if self.group is None:
      numbers = self.floats(rows * columns)
    else:
      codes = struct.unpack_from(f"<{rows * columns}b", self.data, self.at)
      self.at += rows * columns
      scales = self.floats(rows * columns // self.group)
      numbers = [code * scales[i // self.group] for i, code in enumerate(codes)]
    return np.array(numbers).reshape(rows, columns)

  def normed(self, x, scale):
    return x / math.sqrt(sum(value * value for value in x) / len(x) + 1e-5) * np.array(scale)

  def turned(self, x, size, position):
    """Pairs of neighbours in each head."""
    x = x.copy()
    for i in range(0, len(x), 2):
      angle = position / 10000 ** (i % size / size)
      a, b = x[i], x[i + 1]
      x[i], x[i + 1] = a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)
    return x

  def logits(self, tokens):
    size, found = self.dim // self.heads, []
    keys, values = [[] for _ in range(self.layers)], [[] for _ in range(self.layers)]
    for position, token in enumerate(tokens):
      x = self.embedding[token]
      for n in range(self.layers):
        normed = self.normed(x, self.norm_1[n])
        query = self.turned(self.w["wq"][n] @ normed, size, position)
        keys[n].append(self.turned(self.w["wk"][n] @ normed, size, position))
        values[n].append(self.w["wv"][n] @ normed)
        mixed = []
        for head in range(self.heads):
          group = slice(size * (head // (self.heads // self.kv_heads)), None)
          scores = [query[head * size :][:size] @ key[group][:size] / math.sqrt(size) for key in keys[n]]
          shares = np.exp(np.array(scores) - max(scores))
          shares /= shares.sum()
          mixed.extend(sum(share * value[group][:size] for share, value in zip(shares, values[n], strict=True)))
        x = x + self.w["wo"][n] @ np.array(mixed)
        normed = self.normed(x, self.norm_2[n])
        gate = self.w["w1"][n] @ normed
        x = x + self.w["w2"][n] @ (gate / (1 + np.exp(-gate)) * (self.w["w3"][n] @ normed))
      found.append(self.head @ self.normed(x, self.norm))
    return np.array(found)


def ours(model, params):
  return np.asarray(model.text(params, np.array([TOKENS])))[0]


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


# `.pt`: with torch only.


@pytest.fixture
def torch():
  return pytest.importorskip("torch")


def checkpoint(torch, name="untied"):
  """What llama2.c's training saves, made from a `.bin` read in loops; and the logits."""
  model, params = model_of(name)
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "x.bin"
    llama2c.save(path, model, params)
    reader = Reader(path.read_bytes())
  state = {
    "tok_embeddings.weight": reader.embedding,
    "norm.weight": np.array(reader.norm),
    "output.weight": reader.head,
  }
  for n in range(reader.layers):
    state |= {f"layers.{n}.attention.{w}.weight": reader.w[w][n] for w in ("wq", "wk", "wv", "wo")}
    state |= {f"layers.{n}.feed_forward.{w}.weight": reader.w[w][n] for w in ("w1", "w2", "w3")}
    state |= {f"layers.{n}.attention_norm.weight": np.array(reader.norm_1[n])}
    state |= {f"layers.{n}.ffn_norm.weight": np.array(reader.norm_2[n])}
  tensors = {f"_orig_mod.{key}": torch.from_numpy(array).float() for key, array in state.items()}
  if reader.shared:
    tensors["_orig_mod.output.weight"] = tensors["_orig_mod.tok_embeddings.weight"]
  arguments = {"dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": reader.kv_heads, "vocab_size": 11}
  arguments |= {"multiple_of": 8, "max_seq_len": 6, "dropout": 0.0}
  saved = {"model": tensors, "optimizer": {"state": {}}, "model_args": arguments, "iter_num": 3}
  return saved | {"best_val_loss": torch.tensor(1.5), "config": {"out_dir": "out"}}, model, reader.logits(TOKENS)


@pytest.mark.parametrize("name", SHAPES)
def test_checkpoints_of_llama2c(tmp_path, torch, name):
  saved, model, wanted = checkpoint(torch, name)
  torch.save(saved, tmp_path / "ckpt.pt")
  found, params = llama2c.load_checkpoint(tmp_path / "ckpt.pt")
  assert found == model
  np.testing.assert_allclose(ours(found, params), wanted, atol=1e-4, rtol=1e-4)


def test_a_checkpoint_names_its_own_epsilon_and_may_have_no_groups(tmp_path, torch):
  saved, model, _ = checkpoint(torch)
  saved["model_args"] |= {"norm_eps": 1e-6, "n_kv_heads": None}
  torch.save(saved, tmp_path / "ckpt.pt")
  assert llama2c.load_checkpoint(tmp_path / "ckpt.pt")[0].config == dataclasses.replace(model.config, norm_eps=1e-6)


class Evil:
  def __reduce__(self):
    return (open, ("executed", "w"))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda torch, saved: saved.update(best_val_loss=np.float64(1.5)), "not a checkpoint of tensors and plain values"),
    (lambda torch, saved: saved.update(best_val_loss=Evil()), "not a checkpoint of tensors and plain values"),
    (lambda torch, saved: saved.pop("model"), "model: missing"),
    (
      lambda torch, saved: saved["model_args"].update(vocab_size=12),
      "embeddings.weight: shape [11, 16] is not [12, 16]",
    ),
    (lambda torch, saved: saved["model_args"].update(n_layers=3), "model.layers.2.attention.wk.weight: missing"),
    (lambda torch, saved: saved["model_args"].update(n_layers=1), "model.layers.1.attention.wk.weight: not in a model"),
    (lambda torch, saved: saved["model_args"].update(rope_theta=5), "model_args.rope_theta: 5"),
    (lambda torch, saved: saved["model_args"].update(dim=16.0), "width: 16.0"),
    (lambda torch, saved: saved["model_args"].pop("dim"), "model_args.dim: missing"),
    (lambda torch, saved: saved["model"].pop("_orig_mod.norm.weight"), "model.norm.weight: missing"),
    (lambda torch, saved: saved["model"].pop("_orig_mod.output.weight"), "output.weight"),
    (
      lambda torch, saved: saved["model"].update({"_orig_mod.norm.weight": torch.ones(1).expand(16)}),
      "model.norm.weight: not a contiguous tensor",
    ),
    (
      lambda torch, saved: saved["model"].update({"_orig_mod.norm.weight": torch.ones(16, dtype=torch.int32)}),
      "model.norm.weight: not a contiguous tensor of floats",
    ),
  ],
)
def test_wrong_checkpoints(tmp_path, torch, monkeypatch, change, message):
  monkeypatch.chdir(tmp_path)
  saved, _, _ = checkpoint(torch)
  change(torch, saved)
  torch.save(saved, tmp_path / "ckpt.pt")
  with pytest.raises(InputError) as error:
    llama2c.load_checkpoint(tmp_path / "ckpt.pt")
  assert message in str(error.value) and "\n" not in str(error.value)
  assert not (tmp_path / "executed").exists()


def test_damaged_checkpoints(tmp_path, torch):
  saved, _, _ = checkpoint(torch)
  path = tmp_path / "ckpt.pt"
  torch.save(saved, path)
  data = path.read_bytes()
  for damaged in (data[:-100], data[:100], b"", b"nothing"):
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"ckpt\.pt: not a checkpoint"):
      llama2c.load_checkpoint(path)


def test_shared_memory_makes_no_checkpoint_large(tmp_path, torch):
  saved, _, _ = checkpoint(torch)
  large = torch.ones(4000, 16)
  gates = {f"_orig_mod.layers.{n}.feed_forward.{w}.weight": large for n in range(2) for w in ("w1", "w3")}
  downs = {f"_orig_mod.layers.{n}.feed_forward.w2.weight": large.view(16, 4000)[:] for n in range(2)}
  saved["model"] |= gates | downs
  torch.save(saved, tmp_path / "ckpt.pt")
  with pytest.raises(InputError, match="together they are larger than the file"):
    llama2c.load_checkpoint(tmp_path / "ckpt.pt")
