"""llama2.c's `.bin` and its forward pass in loops, written from the format's description."""

import dataclasses
import math
import struct

import numpy as np

from finetune_wrappers.models.llama_layers import LlamaConfig
from tests.llamas import scaled

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
