"""Hugging Face folders of a Llama that are damaged, or hold what ours is not: one line with file and field."""

import json
import struct

import numpy as np
import pytest

from finetune_wrappers.models.formats import huggingface
from finetune_wrappers.types import InputError
from tests.llamas import DOWN, GROUPED, TIED, drawn, one_line, sharded, written


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 50.0}}, "rope_parameters.rope_type: 'llama3'"),
    ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters.partial_rotary_factor: 0.5"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.type: 'linear'"),
    ({"rope_parameters": 3}, "rope_parameters: 3"),
    ({"rope_theta": 7.0}, "rope_parameters.rope_theta: 50.0 is not rope_theta, 7.0"),
    ({"rope_parameters": {"rope_theta": "x"}}, "rope_theta: 'x'"),
    ({"attention_bias": True}, "attention_bias: True"),
    ({"mlp_bias": True}, "mlp_bias: True"),
    ({"hidden_act": "gelu"}, "hidden_act: 'gelu' is not supported; only \"silu\""),
    ({"model_type": "mistral"}, "model_type: 'mistral'"),
    ({"model_type": "gone"}, "model_type: missing"),
    ({"sliding_window": 4}, "sliding_window: 4"),
    ({"use_rope": False}, "use_rope: False"),
    ({"quantization_config": {"bits": 4}}, "quantization_config: a section"),
    ({"head_dim": 16}, "head_dim: 16 is not hidden_size / num_attention_heads, 8"),
    ({"hidden_size": "gone"}, "hidden_size: missing"),
    ({"hidden_size": 16.5}, "hidden_size: 16.5"),
    ({"hidden_size": True}, "hidden_size: True"),
    ({"num_hidden_layers": 10**12}, "num_hidden_layers: 1000000000000"),
    ({"num_key_value_heads": 3}, "num_key_value_heads: 3"),
    ({"rms_norm_eps": 0}, "rms_norm_eps: 0"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: 'yes'"),
    ({"tie_word_embeddings": True}, "tie_word_embeddings: true, but lm_head.weight is not the embedding"),
    ({"vocab_size": 21}, "model.embed_tokens.weight: shape [20, 16] is not [21, 16]"),
    ({"intermediate_size": 25}, "shape [24, 16] is not [25, 16]"),
    ({"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight: missing"),
    ({"num_hidden_layers": 1}, "model.layers.1.input_layernorm.weight: not a tensor"),
  ],
)  # fmt: skip
def test_what_a_config_must_not_say(tmp_path, change, message):
  with pytest.raises(InputError) as error:
    huggingface.load(written(tmp_path, GROUPED, change))
  one_line(error, tmp_path, message)


def test_a_tied_head_that_is_missing_from_the_config(tmp_path):
  with pytest.raises(InputError) as error:
    huggingface.load(written(tmp_path, TIED, {"tie_word_embeddings": "gone"}))
  one_line(error, tmp_path, "tie_word_embeddings: missing, and there is no lm_head.weight")


@pytest.mark.parametrize(
  ("tensors", "message"),
  [
    ({DOWN: None}, f"{DOWN}: missing"),
    ({"model.layers.0.self_attn.q_proj.bias": np.ones(16, np.float32)}, "q_proj.bias: not a tensor"),
    ({DOWN: np.ones((16, 24), np.float64)}, f"{DOWN}: dtype F64"),
    ({DOWN: np.ones((16, 24), np.int32)}, f"{DOWN}: dtype I32"),
    ({DOWN: np.ones((24, 16), np.float32)}, f"{DOWN}: shape [24, 16] is not [16, 24]"),
  ],
)
def test_what_tensors_must_not_be(tmp_path, tensors, message):
  changed = {name: array for name, array in (drawn(GROUPED) | tensors).items() if array is not None}
  with pytest.raises(InputError) as error:
    huggingface.load(written(tmp_path, tensors=changed))
  one_line(error, tmp_path, message)


def _lying(data):
  """The header of a tensor says that it is ten thousand times as long."""
  size = struct.unpack("<Q", data[:8])[0]
  header = json.loads(data[8 : 8 + size])
  header[DOWN]["shape"], header[DOWN]["data_offsets"] = [16, 240000], [0, 16 * 240000 * 4]
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + data[8 + size :]


@pytest.mark.parametrize(
  "damage",
  [
    lambda data: data[:-1],
    lambda data: data[:100],
    lambda data: data[:4],
    lambda data: b"",
    lambda data: data + b"\0",
    lambda data: struct.pack("<Q", 2**62) + data[8:],
    lambda data: struct.pack("<Q", 8) + data[8:],
    lambda data: b"PK\3\4" + data[4:],
    _lying,
  ],
)
def test_damaged_tensors(tmp_path, damage):
  file = written(tmp_path) / "model.safetensors"
  file.write_bytes(damage(file.read_bytes()))
  with pytest.raises(InputError) as error:
    huggingface.load(tmp_path)
  one_line(error, file, "not a whole safetensors file")


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", "[" * 100000, '"a"'])
def test_damaged_configs(tmp_path, text):
  (written(tmp_path) / "config.json").write_bytes(text.encode("latin-1"))
  with pytest.raises(InputError) as error:
    huggingface.load(tmp_path)
  one_line(error, tmp_path / "config.json", "not JSON", "not a JSON object")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files(tmp_path, name):
  (written(tmp_path) / name).unlink()
  with pytest.raises(InputError) as error:
    huggingface.load(tmp_path)
  one_line(error, tmp_path / name, "missing")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"weight_map": None}, "weight_map: None"),
    ({"weight_map": {}}, "weight_map: a section"),
    ({DOWN: "../model.safetensors"}, "'../model.safetensors' of"),
    ({DOWN: 3}, "weight_map: 3 of"),
    ({DOWN: "other.safetensors"}, "other.safetensors: missing"),
    ({DOWN: "model-00001-of-00002.safetensors"}, f"{DOWN} is in only one"),
    ({DOWN: "gone"}, f"{DOWN} is in only one"),
    ({"more": "model-00001-of-00002.safetensors"}, "more is in only one"),
  ],
)
def test_wrong_indices(tmp_path, change, message):
  index = sharded(tmp_path)
  if "weight_map" in change:
    index |= change
  else:
    index["weight_map"] = {name: file for name, file in (index["weight_map"] | change).items() if file != "gone"}
  (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
  with pytest.raises(InputError) as error:
    huggingface.load(tmp_path)
  one_line(error, tmp_path, message)
