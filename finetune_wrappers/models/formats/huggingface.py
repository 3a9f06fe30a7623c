"""Hugging Face's folders of a Llama: config.json with model.safetensors, or its shards with their index.

What our Llama does not do (rope scaling, biases, other activations, heads of another size) is refused by its name in
config.json. Names and defaults are those of transformers 5.24 and of older files; its rotary layout is ours.
"""

import contextlib
import json
import os
import pathlib
import re
from typing import Any

import ml_dtypes  # noqa: F401 - without it NumPy has no bfloat16
import safetensors
import safetensors.numpy

from finetune_wrappers.files import write_atomically
from finetune_wrappers.models.formats import layout
from finetune_wrappers.models.llama import Llama
from finetune_wrappers.models.llama_layers import LlamaConfig
from finetune_wrappers.rules import FLAG, shown
from finetune_wrappers.types import InputError, Params

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
HEAD = "lm_head.weight"
# Our field by theirs.
FIELDS = {
  "vocab_size": "vocab_size",
  "max_position_embeddings": "length",
  "num_hidden_layers": "blocks",
  "num_attention_heads": "heads",
  "num_key_value_heads": "kv_heads",
  "hidden_size": "width",
  "intermediate_size": "hidden",
  "rms_norm_eps": "norm_eps",
}
DEFAULTS = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6}  # of transformers, for files without the key
ROPE_THETA = 10000.0  # the same
FIXED = {
  "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
  "is_encoder_decoder": False, "add_cross_attention": False, "tie_encoder_decoder": False,
}  # fmt: skip
# Neither changes the logits of the weights in the file.
FREE = {
  "architectures", "_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "initializer_range",
  "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "pretraining_tp", "_attn_implementation_autoset",
}  # fmt: skip
ROPE, ROPE_KEYS = ("rope_parameters", "rope_scaling"), ("rope_type", "type")
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
# Old files hold the rotary frequencies too; transformers leaves them unread, as they follow from the config.
UNREAD = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
INSIDE = {
  "norm_1/scale": "input_layernorm.weight",
  "attn/query/kernel": "self_attn.q_proj.weight",
  "attn/key/kernel": "self_attn.k_proj.weight",
  "attn/value/kernel": "self_attn.v_proj.weight",
  "attn/linear/kernel": "self_attn.o_proj.weight",
  "norm_2/scale": "post_attention_layernorm.weight",
  "mlp/gate/kernel": "mlp.gate_proj.weight",
  "mlp/up/kernel": "mlp.up_proj.weight",
  "mlp/down/kernel": "mlp.down_proj.weight",
}
OUTSIDE = {"token_embed/embedding": "model.embed_tokens.weight", "norm/scale": "model.norm.weight", "head/kernel": HEAD}


def load(folder: str | os.PathLike) -> tuple[Llama, Params]:
  """Reads a model.

  Weights of float32, bfloat16 and float16 become float32 without loss, whatever `dtype` config.json names. The
  model computes in float32; for another `compute_dtype` use `Llama(dataclasses.replace(model.config, ...))`.

  Args:
    folder: with config.json, and model.safetensors or model.safetensors.index.json and its shards. The first is read
      where both are there, as in transformers.

  Returns:
    (model, params), params float32.

  Raises:
    InputError: if a file is missing or damaged, if config.json has what our Llama does not do, or if a tensor is
      missing, unknown, or of another shape or dtype than config.json says. No tensor is read before all are checked.
  """
  folder = pathlib.Path(folder)
  with contextlib.ExitStack() as stack:
    tensors = _tensors(folder, stack)
    config = _config(folder / CONFIG, untied=HEAD in tensors)
    files = layout.names(config, outside=OUTSIDE, inside=INSIDE, prefix="model.layers.")
    _check(folder, config, files, tensors)
    with _readable(folder):
      params = layout.from_file(config, lambda path: tensors[files[path]].get_tensor(files[path]))
      # Tied files of some programs have the head too. transformers drops it; we do so only if that changes nothing.
      head = tensors[HEAD].get_tensor(HEAD) if config.tied and HEAD in tensors else None
      if head is not None and (head != params["token_embed"]["embedding"]).any():
        raise InputError(f"{folder / CONFIG}: tie_word_embeddings: true, but {HEAD} is not the embedding")
  return Llama(config), params


def save(folder: str | os.PathLike, model: Llama, params: Params) -> None:
  """Writes config.json and model.safetensors, float32; replaces those in the folder, which is made if missing.

  `compute_dtype` is no part of such a folder. Ids of bos and eos are 1 and 2, as in our tokenizers.

  Args:
    folder: local.
    model: a Llama.
    params: of the model.

  Raises:
    InputError: if the parameters are not the model's.
    OSError: if a file cannot be written.
  """
  folder, config = pathlib.Path(folder), model.config
  arrays = layout.to_file(model, params)
  files = layout.names(config, outside=OUTSIDE, inside=INSIDE, prefix="model.layers.")
  facts = {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}
  facts |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"}
  facts |= {"attention_bias": False, "mlp_bias": False, "head_dim": config.width // config.heads}
  # Without the first, transformers draws a head at random; a reader before version 5 wants the third.
  facts |= {"tie_word_embeddings": config.tied, "dtype": "float32", "rope_theta": config.rope_theta}
  facts |= {"rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"}}
  facts |= {"bos_token_id": 1, "eos_token_id": 2}
  data = safetensors.numpy.save({files[path]: array for path, array in arrays.items()}, metadata={"format": "pt"})
  write_atomically(folder / WEIGHTS, data)
  write_atomically(folder / CONFIG, (json.dumps(facts, indent=2, sort_keys=True) + "\n").encode())


def _config(path: pathlib.Path, *, untied: bool) -> LlamaConfig:
  """The config; `untied` says whether the tensors have a head."""
  facts = _json(path)
  for field, value in facts.items():
    if field in FIXED and value != FIXED[field]:
      raise InputError(f"{path}: {field}: {shown(value)} is not supported; only {json.dumps(FIXED[field])}")
    known = {*FIELDS, *FIXED, *FREE, *ROPE, "rope_theta", "head_dim", "tie_word_embeddings"}
    if field not in known and value is not None:
      raise InputError(f"{path}: {field}: {shown(value)} is not supported; remove it if the logits do not depend on it")
  facts = DEFAULTS | {field: value for field, value in facts.items() if value is not None}
  # Files from before grouped heads do not have the key.
  facts.setdefault("num_key_value_heads", facts.get("num_attention_heads"))
  for field in ("model_type", *FIELDS):
    if facts.get(field) is None:
      raise InputError(f"{path}: {field}: missing")
  tied = facts.get("tie_word_embeddings", False)
  if "tie_word_embeddings" not in facts and not untied:
    raise InputError(f"{path}: tie_word_embeddings: missing, and there is no {HEAD}; write true if the head is tied")
  if not FLAG.fits(tied):
    raise InputError(f"{path}: tie_word_embeddings: {shown(tied)} is not true or false")
  theirs = {ours: field for field, ours in FIELDS.items()}
  try:
    given = {ours: facts[field] for field, ours in FIELDS.items()}
    config = LlamaConfig(**given, rope_theta=_rope_theta(path, facts), tied=tied)
  except InputError as error:
    field, _, rest = str(error).partition(":")
    raise InputError(f"{path}: {theirs.get(field, field)}:{rest}") from error
  size = config.width // config.heads
  if facts.get("head_dim", size) != size:
    raise InputError(f"{path}: head_dim: {shown(facts['head_dim'])} is not hidden_size / num_attention_heads, {size}")
  return config


def _rope_theta(path: pathlib.Path, facts: dict[str, Any]) -> Any:
  found = {"rope_theta": facts["rope_theta"]} if "rope_theta" in facts else {}
  for section in (name for name in ROPE if name in facts):
    if not isinstance(facts[section], dict):
      raise InputError(f"{path}: {section}: {shown(facts[section])} is not a section")
    for field, value in facts[section].items():
      if field == "rope_theta":
        found[f"{section}.rope_theta"] = value
      elif not (value is None or (field in ROPE_KEYS and value == "default")):
        raise InputError(f"{path}: {section}.{field}: {shown(value)} is not supported; only unscaled rotary positions")
  first, *others = found.items() or [("rope_theta", ROPE_THETA)]
  for field, value in others:
    if value != first[1]:
      raise InputError(f"{path}: {field}: {shown(value)} is not {first[0]}, {shown(first[1])}")
  return first[1]


def _tensors(folder: pathlib.Path, stack: contextlib.ExitStack) -> dict[str, Any]:
  """The open file of each tensor. Its header has been checked: safetensors refuses one that does not fit the file."""

  def opened(path: pathlib.Path) -> Any:
    with _readable(path):
      if not path.is_file():
        raise FileNotFoundError
      return stack.enter_context(safetensors.safe_open(path, framework="np"))

  if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
    file = opened(folder / WEIGHTS)
    return dict.fromkeys(file.keys(), file)
  index = folder / INDEX
  places = _json(index).get("weight_map")
  if not isinstance(places, dict) or not places:
    raise InputError(f"{index}: weight_map: {shown(places)} is not a section of tensors and their files")
  for tensor, name in places.items():
    # A path would reach outside of the folder.
    if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
      raise InputError(f"{index}: weight_map: {shown(name)} of {shown(tensor)} is not the name of a safetensors file")
  files = {name: opened(folder / name) for name in sorted(set(places.values()))}
  for name, file in files.items():
    odd = set(file.keys()) ^ {tensor for tensor, place in places.items() if place == name}
    if odd:
      raise InputError(f"{folder / name}: {min(odd)} is in only one of the file and the weight_map of {INDEX}")
  return {tensor: files[name] for tensor, name in places.items()}


def _check(folder: pathlib.Path, config: LlamaConfig, files: dict[str, str], tensors: dict[str, Any]) -> None:
  """Raises InputError unless the tensors are exactly those of the config."""
  wanted = {files[path]: list(shape) for path, shape in layout.shapes(config).items()}
  if config.tied and HEAD in tensors:
    wanted[HEAD] = [config.vocab_size, config.width]
  for name in sorted(wanted.keys() - tensors.keys()):
    raise InputError(f"{folder}: {name}: missing, but {CONFIG} asks for it")
  for name in sorted(tensors.keys() - wanted.keys()):
    if not UNREAD.fullmatch(name):
      raise InputError(f"{folder}: {name}: not a tensor of a Llama of the sizes in {CONFIG}")
  for name, shape in wanted.items():
    found = tensors[name].get_slice(name)
    if found.get_shape() != shape:
      raise InputError(f"{folder}: {name}: shape {found.get_shape()} is not {shape}, which {CONFIG} asks for")
    if found.get_dtype() not in DTYPES:
      raise InputError(f"{folder}: {name}: dtype {found.get_dtype()} is not one of {', '.join(DTYPES)}")


def _json(path: pathlib.Path) -> dict[str, Any]:
  with _readable(path):
    data = path.read_bytes()
  try:
    facts = json.loads(data)
  except (ValueError, RecursionError) as error:
    raise InputError(f"{path}: not JSON ({_line(error)})") from error
  if not isinstance(facts, dict):
    raise InputError(f"{path}: not a JSON object")
  return facts


@contextlib.contextmanager
def _readable(path: pathlib.Path):
  """Turns errors of reading the path into InputErrors."""
  try:
    yield
  except FileNotFoundError as error:
    needed = f"a model's folder has {CONFIG} and {WEIGHTS} (pickled files are not read)"
    raise InputError(f"{path}: missing; {needed}") from error
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({_line(error)})") from error
  except safetensors.SafetensorError as error:
    raise InputError(f"{path}: not a whole safetensors file ({_line(error)})") from error


def _line(error: Exception) -> str:
  return " ".join(str(error).split())
