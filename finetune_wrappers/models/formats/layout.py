"""A Llama's parameters as files of PyTorch's world keep them: matrices are [out, in], ours are [in, out]."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from finetune_wrappers.models.llama import Llama
from finetune_wrappers.models.llama_layers import LlamaConfig
from finetune_wrappers.types import InputError, Params


def shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
  """Shape in the file, [out, in] for matrices, of each parameter, by its path in our tree: `blocks_0/attn/key/kernel`.

  In the order of computation. Nothing of these sizes is allocated.
  """
  width, hidden = config.width, config.hidden
  shared = config.kv_heads * (width // config.heads)
  block = {
    "norm_1/scale": (width,),
    "attn/query/kernel": (width, width),
    "attn/key/kernel": (shared, width),
    "attn/value/kernel": (shared, width),
    "attn/linear/kernel": (width, width),
    "norm_2/scale": (width,),
    "mlp/gate/kernel": (hidden, width),
    "mlp/up/kernel": (hidden, width),
    "mlp/down/kernel": (width, hidden),
  }
  blocks = {f"blocks_{i}/{part}": shape for i in range(config.blocks) for part, shape in block.items()}
  head = {} if config.tied else {"head/kernel": (config.vocab_size, width)}
  return {"token_embed/embedding": (config.vocab_size, width), **blocks, "norm/scale": (width,), **head}


def names(config: LlamaConfig, *, outside: Mapping[str, str], inside: Mapping[str, str], prefix: str) -> dict[str, str]:
  """The file's name of each parameter by its path.

  Args:
    config: of the model.
    outside: names of parameters outside blocks, by path.
    inside: names of parameters inside a block, by path in the block.
    prefix: what stands before the block's number in names.
  """
  found = {}
  for path in shapes(config):
    block, _, part = path.partition("/")
    found[path] = outside.get(path) or f"{prefix}{block.removeprefix('blocks_')}.{inside[part]}"
  return found


def to_file(model: Llama, params: Params) -> dict[str, np.ndarray]:
  """Parameters by path, each float32, C-ordered, with the shape of `shapes`.

  Raises:
    InputError: if a parameter is missing, unknown, of another shape, or not of floats.
  """
  given = flax.traverse_util.flatten_dict(params, sep="/")
  wanted = shapes(model.config)
  for path in (*given, *wanted):
    if path not in given or path not in wanted:
      raise InputError(f"params: {path} is {'missing' if path in wanted else 'not in a model of this config'}")
  found = {}
  for path, shape in wanted.items():
    array = np.asarray(given[path])
    ours = shape[::-1] if path.endswith("kernel") else shape
    if array.shape != ours or not _floats(array):
      raise InputError(f"params: {path} is {array.dtype}{list(array.shape)}; needs floats {list(ours)}")
    # C order: safetensors writes the memory of a transposed view as it lies, and so saves other values.
    found[path] = np.ascontiguousarray(array.T if path.endswith("kernel") else array, np.float32)
  return found


def from_file(config: LlamaConfig, read: Callable[[str], Any]) -> Params:
  """Our tree, float32, from arrays in the shape of the file.

  Args:
    config: of the model.
    read: gives the array of a path of `shapes`, which has been checked.
  """
  found = {}
  for path in shapes(config):
    array = read(path)
    found[path] = np.array(array.T if path.endswith("kernel") else array, np.float32, order="C")
  return flax.traverse_util.unflatten_dict(found, sep="/")


def _floats(array: np.ndarray) -> bool:
  # bfloat16 is no `np.floating`; all floats of ml_dtypes convert to float32 safely, and integers do not.
  return array.dtype.kind not in "biucOSUmM" and np.can_cast(array.dtype, np.float64)
