"""Llamas for tests: weights that hide nothing, and folders as transformers writes them."""

import functools
import json
import pathlib

import numpy as np
import safetensors.numpy

from finetune_wrappers.models.llama import Llama, build
from tests.data.make_llama_golden import weights

GOLDEN = json.loads((pathlib.Path(__file__).parent / "data" / "llama_golden.json").read_text())["cases"]
TIED, GROUPED, WHOLE = GOLDEN
DOWN = "model.layers.1.mlp.down_proj.weight"
HEAD = "lm_head.weight"


@functools.cache
def drawn(name):
  return weights(GOLDEN[name]["shapes"], GOLDEN[name]["seed"])


def written(folder, name=GROUPED, change=None, tensors=None):
  """A folder as transformers writes it; `change` maps config.json's fields to new values, "gone" removing one."""
  facts = json.loads(GOLDEN[name]["config"]) | (change or {})
  (folder / "config.json").write_text(json.dumps({field: facts[field] for field in facts if facts[field] != "gone"}))
  safetensors.numpy.save_file(
    drawn(name) if tensors is None else tensors, folder / "model.safetensors", {"format": "pt"}
  )
  return folder


def scaled(config, seed=0):
  """Weights large enough that a mistake shows."""
  params = build(config, seed)[0]["params"]
  generator = np.random.default_rng(seed)

  def draw(node):
    if isinstance(node, dict):
      return {key: draw(value) for key, value in sorted(node.items())}
    wide = 1 if node.ndim == 1 else 2 / node.shape[0] ** 0.5
    return (wide * (generator.standard_normal(node.shape) + (node.ndim == 1) * 3)).astype(np.float32)

  return Llama(config), draw(params)


def one_line(error, folder, *messages):
  text = str(error.value)
  assert any(message in text for message in messages), text
  assert str(folder) in text and "\n" not in text


def sharded(folder):
  """Two shards and their index; returns the index."""
  written(folder)
  (folder / "model.safetensors").unlink()
  places = {name: f"model-0000{1 + ('mlp' in name)}-of-00002.safetensors" for name in drawn(GROUPED)}
  for file in set(places.values()):
    part = {name: array for name, array in drawn(GROUPED).items() if places[name] == file}
    safetensors.numpy.save_file(part, folder / file)
  return {"metadata": {"total_size": 1}, "weight_map": places}
