"""Files of llama2.c: `.bin` of versions 0, 1 and 2, and its training checkpoints `.pt`.

All integers and floats are little-endian. A `.bin` holds no base of the rotary angles and no epsilon of norms: the
program has 10000 and 1e-5, so other models are refused. Version 0 has tables of angles, which the program skips.
Rotary pairs are (2j, 2j + 1) in a head there and (j, j + K/2) here: rows of query and key matrices change places.
"""

import math
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from finetune_wrappers.files import write_atomically
from finetune_wrappers.models.formats import layout
from finetune_wrappers.models.llama import Llama
from finetune_wrappers.models.llama_layers import LlamaConfig, rotary_table
from finetune_wrappers.rules import SIZE, shown, whole
from finetune_wrappers.types import InputError, Params, require

MAGIC = b"24ka"  # "ak42" read as one number
HEADER = 256  # bytes, from version 1 on
SIZES = ("width", "hidden", "blocks", "heads", "kv_heads", "vocab_size", "length")  # seven int32, in this order
GROUP_SIZE = 64  # numbers that share a scale in version 2
ROPE_THETA, NORM_EPS = 10000.0, 1e-5  # of the program
VERSIONS = (0, 1, 2)
# Names in a `.pt`.
INSIDE = {
  "norm_1/scale": "attention_norm.weight",
  "attn/query/kernel": "attention.wq.weight",
  "attn/key/kernel": "attention.wk.weight",
  "attn/value/kernel": "attention.wv.weight",
  "attn/linear/kernel": "attention.wo.weight",
  "norm_2/scale": "ffn_norm.weight",
  "mlp/gate/kernel": "feed_forward.w1.weight",
  "mlp/down/kernel": "feed_forward.w2.weight",
  "mlp/up/kernel": "feed_forward.w3.weight",
}
OUTSIDE = {
  "token_embed/embedding": "tok_embeddings.weight",
  "norm/scale": "norm.weight",
  "head/kernel": "output.weight",
}
NORMS = ("norm_1/scale", "norm_2/scale")
MATRICES = tuple(part for part in INSIDE if part not in NORMS)
ARGUMENTS = {
  "dim": "width", "n_layers": "blocks", "n_heads": "heads", "n_kv_heads": "kv_heads", "vocab_size": "vocab_size",
  "max_seq_len": "length", "norm_eps": "norm_eps",
}  # fmt: skip
# Where the sizes of the MLP come from, which its tensors say better, and what only training uses.
UNREAD = ("multiple_of", "hidden_dim", "dropout")


def load(path: str | os.PathLike) -> tuple[Llama, Params]:
  """Reads a `.bin` of version 0, 1 or 2.

  Args:
    path: of the file. Without llama2.c's magic number it is of version 0.

  Returns:
    (model, params), params float32; those of version 2 are what its int8 numbers stand for.

  Raises:
    InputError: if the file is missing, of another version, or not of the length that its header asks for. Nothing is
      allocated before that is known.
  """
  path = pathlib.Path(path)
  try:
    with path.open("rb") as file:
      length = os.fstat(file.fileno()).st_size
      version, config, group_size = _header(path, file.read(HEADER))
      expected = _header_bytes(version) + _body_bytes(config, version, group_size)
      if length != expected:
        raise InputError(f"{path}: {length} bytes, but its header asks for {expected}")
      file.seek(_header_bytes(version))
      found = {}
      for name, shape in _order(config, version):
        quantised = group_size is not None and len(shape) == 2
        array = _dequantised(file, shape, group_size) if quantised else _floats(file, shape)
        if name:
          found[name] = array
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from error
  return Llama(config), layout.from_file(config, lambda name: _turned(config, name, found.pop(name), ours=True))


def save(
  path: str | os.PathLike, model: Llama, params: Params, *, version: int = 1, group_size: int = GROUP_SIZE
) -> None:
  """Writes a `.bin`; replaces the file. llama2.c's `run` reads version 0, its `runq` version 2.

  Version 2 keeps norms as float32 and rounds every matrix to int8, -127 to 127, with one float32 scale for each
  `group_size` numbers. The size is halved until it divides both width and hidden: llama2.c's own exporter looks at the
  width alone, and `runq` then drops what is left over of the hidden units.

  Args:
    path: local.
    model: a Llama with rope_theta 10000 and norm_eps 1e-5.
    params: of the model.
    version: 0, 1 or 2.
    group_size: largest group of version 2.

  Raises:
    InputError: if a setting does not fit the format or the parameters are not the model's or, in version 2, not finite.
    OSError: if the file cannot be written.
  """
  config = model.config
  whole(0, 2).check("version", version)
  SIZE.check("group_size", group_size)
  for field, needed in (("rope_theta", ROPE_THETA), ("norm_eps", NORM_EPS)):
    require(getattr(config, field) == needed, field, getattr(config, field), f"{needed}; a .bin holds no other")
  arrays = layout.to_file(model, params)
  while config.width % group_size or config.hidden % group_size:
    group_size //= 2
  sizes = [getattr(config, field) for field in SIZES]
  if version == 0:
    sizes[SIZES.index("vocab_size")] *= 1 if config.tied else -1
    data = [struct.pack("<7i", *sizes)]
  else:
    data = [MAGIC + struct.pack("<8iB", version, *sizes, config.tied)]
    data += [struct.pack("<i", group_size)] if version == 2 else []
    data += [bytes(HEADER - len(b"".join(data)))]
  tables = iter(rotary_table(config).swapaxes(0, 1))  # cosines, then sines
  for name, shape in _order(config, version):
    array = _turned(config, name, arrays[name], ours=False) if name else next(tables)
    quantised = version == 2 and len(shape) == 2
    data += _quantised(name, array, group_size) if quantised else [np.ascontiguousarray(array, "<f4").tobytes()]
  write_atomically(path, b"".join(data))


def load_checkpoint(path: str | os.PathLike) -> tuple[Llama, Params]:
  """Reads a training checkpoint of llama2.c, `ckpt.pt`, such as the authors' code writes (paper part C). Needs torch.

  Torch reads it with `weights_only`, and maps it: it calls nothing that the file names. Weights become float32.

  Returns:
    (model, params); the head is tied if the file's equals the embedding.

  Raises:
    InputError: if torch is missing, if the file is damaged or holds other objects than tensors and plain values, or if
      a tensor is missing, unknown, or of another shape than its `model_args` say.
  """
  try:
    import torch  # pyright: ignore[reportMissingImports] - optional
  except ImportError as error:
    raise InputError(f"{path}: a .pt needs torch; install it with pip install torch") from error
  try:
    # Mapped, so that no storage is larger than the file.
    saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
  except Exception as error:  # pickle's, zip's and torch's own, whatever the damage
    line = " ".join(str(error).split())[:200]
    raise InputError(f"{path}: not a checkpoint of tensors and plain values ({line})") from error
  arguments, state = (_section(path, saved, field) for field in ("model_args", "model"))
  state = {str(name).removeprefix("_orig_mod."): tensor for name, tensor in state.items()}  # put on by torch.compile
  for name, tensor in state.items():
    # A tensor of strides 0 would have any size in a small file.
    if not (isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.is_contiguous()):
      raise InputError(f"{path}: model.{name}: not a contiguous tensor of floats")
  embedding, output, gate = (state.get(name) for name in (*_tied_names(), "layers.0.feed_forward.w1.weight"))
  if embedding is None or output is None or gate is None or gate.ndim != 2:
    raise InputError(f"{path}: model: {', '.join(_tied_names())} or layers.0.feed_forward.w1.weight missing")
  for field, value in arguments.items():
    if field not in (*ARGUMENTS, *UNREAD):
      raise InputError(f"{path}: model_args.{field}: {shown(value)} is not supported")
  given = {ours: arguments[field] for field, ours in ARGUMENTS.items() if arguments.get(field) is not None}
  given = {"kv_heads": given.get("heads"), "norm_eps": NORM_EPS, **given}
  for field, ours in ARGUMENTS.items():
    if given.get(ours) is None:
      raise InputError(f"{path}: model_args.{field}: missing")
  tied = embedding.shape == output.shape and bool((embedding == output).all())
  config = _config(path, {**given, "hidden": gate.shape[0], "tied": tied})
  files = layout.names(config, outside=OUTSIDE, inside=INSIDE, prefix="layers.")
  wanted = {files[name]: shape for name, shape in layout.shapes(config).items()}
  for name in sorted(wanted.keys() ^ (state.keys() - ({"output.weight"} if tied else set()))):
    raise InputError(f"{path}: model.{name}: {'missing' if name in wanted else 'not in a model of these model_args'}")
  for name, shape in wanted.items():
    if tuple(state[name].shape) != shape:
      raise InputError(f"{path}: model.{name}: shape {list(state[name].shape)} is not {list(shape)}, by model_args")
  if sum(state[name].nbytes for name in wanted) > os.path.getsize(path):
    raise InputError(f"{path}: model: tensors share their memory, so together they are larger than the file")

  def read(name: str) -> np.ndarray:
    return _turned(config, name, state[files[name]].float().numpy(), ours=True)

  return Llama(config), layout.from_file(config, read)


def _tied_names() -> tuple[str, str]:
  return OUTSIDE["token_embed/embedding"], OUTSIDE["head/kernel"]


def _section(path: Any, saved: Any, field: str) -> dict:
  found = saved.get(field) if isinstance(saved, dict) else None
  if not isinstance(found, dict):
    raise InputError(f"{path}: {field}: missing; a checkpoint of llama2.c has model_args and model")
  return found


def _config(path: Any, fields: dict[str, Any]) -> LlamaConfig:
  try:
    return LlamaConfig(**fields)
  except InputError as error:
    raise InputError(f"{path}: {error}") from error


def _header(path: pathlib.Path, data: bytes) -> tuple[int, LlamaConfig, int | None]:
  """(version, sizes, group size of version 2)."""
  version, start = (struct.unpack_from("<i", data, 4)[0], 8) if len(data) >= 8 and data[:4] == MAGIC else (0, 0)
  if version not in VERSIONS:
    raise InputError(f"{path}: version: {version} is not one of 0, 1, 2")
  if len(data) < _header_bytes(version):
    raise InputError(f"{path}: {len(data)} bytes; the header alone has {_header_bytes(version)}")
  sizes = dict(zip(SIZES, struct.unpack_from("<7i", data, start), strict=True))
  if version == 0:
    tied, sizes["vocab_size"] = sizes["vocab_size"] > 0, abs(sizes["vocab_size"])
  else:
    tied = data[36]
    require(tied in (0, 1), f"{path}: shared classifier", tied, "0 or 1")
  fixed = {"rope_theta": ROPE_THETA, "norm_eps": NORM_EPS, "tied": bool(tied)}
  config = _config(path, {**sizes, **fixed})
  if version < 2:
    return version, config, None
  (group_size,) = struct.unpack_from("<i", data, 37)
  fits = group_size > 0 and all(math.prod(s) % group_size == 0 for s in layout.shapes(config).values() if len(s) == 2)
  require(fits, f"{path}: group size", group_size, "a divisor of the size of every matrix")
  return version, config, group_size


def _header_bytes(version: int) -> int:
  return HEADER if version else 4 * len(SIZES)


def _body_bytes(config: LlamaConfig, version: int, group_size: int | None) -> int:
  total = 0
  for _, shape in _order(config, version):
    count = math.prod(shape)
    total += count + 4 * (count // group_size) if group_size and len(shape) == 2 else 4 * count
  return total


def _order(config: LlamaConfig, version: int) -> Iterator[tuple[str, tuple[int, ...]]]:
  """(path, shape) of every array as it lies in the file; the path is empty for version 0's two tables of angles."""
  shapes = layout.shapes(config)

  def each(*parts: str) -> list[str]:
    return [f"blocks_{i}/{part}" for part in parts for i in range(config.blocks)]

  attention, mlp = MATRICES[:4], MATRICES[4:]
  embedding, norm, head = OUTSIDE
  if version == 0:
    paths = [embedding, *each(NORMS[0], *attention, NORMS[1], *mlp), norm, "", ""]
  else:
    paths = [*each(*NORMS), norm, embedding, *each(*MATRICES)]
  for path in [*paths, *([] if config.tied else [head])]:
    yield path, shapes[path] if path else (config.length, config.width // config.heads // 2)


def _turned(config: LlamaConfig, path: str, array: np.ndarray, *, ours: bool) -> np.ndarray:
  """Query and key matrices [heads K, D] with the rows of each head in our order, or in theirs; others as they are."""
  if not path.endswith(("attn/query/kernel", "attn/key/kernel")):
    return array
  pairs = config.width // config.heads // 2
  split = (-1, pairs, 2, array.shape[1]) if ours else (-1, 2, pairs, array.shape[1])
  return array.reshape(split).swapaxes(1, 2).reshape(array.shape)


def _floats(file: IO[bytes], shape: tuple[int, ...]) -> np.ndarray:
  return np.fromfile(file, "<f4", math.prod(shape)).reshape(shape)


def _dequantised(file: IO[bytes], shape: tuple[int, ...], group_size: int | None) -> np.ndarray:
  codes = np.fromfile(file, np.int8, math.prod(shape)).reshape(-1, group_size or 1)
  return (codes * np.fromfile(file, "<f4", len(codes))[:, None]).reshape(shape)


def _quantised(name: str, array: np.ndarray, group_size: int) -> list[bytes]:
  """The int8 numbers, then the scales."""
  groups = array.reshape(-1, group_size)
  if not np.isfinite(groups).all():
    raise InputError(f"params: {name} is not finite; version 2 cannot hold that")
  scales = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127)
  codes = np.rint(np.divide(groups, scales, out=np.zeros_like(groups), where=scales > 0))  # half to even, as torch
  return [codes.astype(np.int8).tobytes(), scales.astype("<f4").tobytes()]
