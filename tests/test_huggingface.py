"""Hugging Face folders of a Llama: against logits of transformers, and against damage."""

import dataclasses
import functools
import json
import pathlib
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from finetune_wrappers.models.formats import huggingface
from finetune_wrappers.models.llama import Llama, build
from finetune_wrappers.models.llama_layers import LlamaConfig
from finetune_wrappers.types import InputError
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


def logits(model, params, name):
  return np.asarray(model.text(params, np.array(GOLDEN[name]["tokens"])))


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


CONFIG = LlamaConfig(
  vocab_size=20, length=8, blocks=2, heads=4, kv_heads=2, width=16, hidden=24, rope_theta=77.0, norm_eps=1e-3, tied=True
)


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_are_those_of_transformers(tmp_path, name):
  model, params = huggingface.load(written(tmp_path, name))
  np.testing.assert_allclose(logits(model, params, name), GOLDEN[name]["logits"], atol=1e-4, rtol=1e-4)
  assert np.std(GOLDEN[name]["logits"]) > 1  # nothing hides in small numbers


@pytest.mark.parametrize("name", GOLDEN)
def test_what_we_write_is_what_transformers_writes(tmp_path, name):
  huggingface.save(tmp_path / "ours", *huggingface.load(written(tmp_path, name)))
  config = json.loads(GOLDEN[name]["config"])
  ours = json.loads((tmp_path / "ours" / "config.json").read_text())
  assert {field: value for field, value in ours.items() if config.get(field) != value} == {
    "rope_theta": config["rope_parameters"]["rope_theta"]
  }
  found = safetensors.numpy.load_file(tmp_path / "ours" / "model.safetensors")
  assert found.keys() == drawn(name).keys()
  for tensor, array in drawn(name).items():
    np.testing.assert_array_equal(found[tensor], array)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_comes_back(tmp_path, tied):
  model, params = scaled(dataclasses.replace(CONFIG, tied=tied))
  huggingface.save(tmp_path, model, params)
  again, found = huggingface.load(tmp_path)
  assert again == model
  flat = np.concatenate([array.ravel() for array in _leaves(params)])
  np.testing.assert_array_equal(np.concatenate([array.ravel() for array in _leaves(found)]), flat)


def _leaves(node):
  return [leaf for key in sorted(node) for leaf in _leaves(node[key])] if isinstance(node, dict) else [node]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_files_become_float32_without_loss(tmp_path, dtype):
  rounded = {name: array.astype(dtype) for name, array in drawn(TIED).items()}
  _, params = huggingface.load(written(tmp_path, TIED, {"dtype": "float32"}, rounded))
  found = params["blocks_1"]["mlp"]["down"]["kernel"]
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, rounded[DOWN].astype(np.float32).T)


def test_the_configs_dtype_does_not_round_a_file_of_float32(tmp_path):
  _, params = huggingface.load(written(tmp_path, TIED, {"dtype": "bfloat16", "torch_dtype": "bfloat16"}))
  np.testing.assert_array_equal(params["blocks_1"]["mlp"]["down"]["kernel"], drawn(TIED)[DOWN].T)


OLD = {"rope_parameters": "gone", "head_dim": "gone"}


@pytest.mark.parametrize(
  ("change", "field", "value"),
  [
    ({**OLD, "rope_theta": 50.0}, "rope_theta", 50.0),
    ({**OLD, "rope_theta": 50.0, "rope_scaling": None}, "rope_theta", 50.0),
    ({"rope_theta": 50.0}, "rope_theta", 50.0),
    (OLD, "rope_theta", 10000.0),
    ({"rms_norm_eps": "gone"}, "norm_eps", 1e-6),
    ({"max_position_embeddings": "gone"}, "length", 2048),
    ({"tie_word_embeddings": "gone"}, "tied", False),
    ({"mlp_bias": "gone", "attention_bias": "gone", "hidden_act": "gone"}, "norm_eps", 0.05),
  ],
)
def test_older_configs(tmp_path, change, field, value):
  model, _ = huggingface.load(written(tmp_path, GROUPED, change))
  assert getattr(model.config, field) == value


def test_a_config_from_before_grouped_heads(tmp_path):
  model, _ = huggingface.load(written(tmp_path, WHOLE, {"num_key_value_heads": "gone"}))
  assert model.config.kv_heads == 2


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
  _one_line(error, tmp_path, message)


def _one_line(error, folder, *messages):
  text = str(error.value)
  assert any(message in text for message in messages), text
  assert str(folder) in text and "\n" not in text


def test_a_tied_head_that_is_missing_from_the_config(tmp_path):
  with pytest.raises(InputError) as error:
    huggingface.load(written(tmp_path, TIED, {"tie_word_embeddings": "gone"}))
  _one_line(error, tmp_path, "tie_word_embeddings: missing, and there is no lm_head.weight")


def test_a_tied_file_may_have_its_head_too(tmp_path):
  both = drawn(TIED) | {HEAD: drawn(TIED)["model.embed_tokens.weight"]}
  model, params = huggingface.load(written(tmp_path, TIED, tensors=both))
  np.testing.assert_allclose(logits(model, params, TIED), GOLDEN[TIED]["logits"], atol=1e-4, rtol=1e-4)


def test_rotary_frequencies_of_old_files_are_not_read(tmp_path):
  extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
  huggingface.load(written(tmp_path, TIED, tensors=drawn(TIED) | extra))


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
  _one_line(error, tmp_path, message)


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
  _one_line(error, file, "not a whole safetensors file")


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", "[" * 100000, '"a"'])
def test_damaged_configs(tmp_path, text):
  (written(tmp_path) / "config.json").write_bytes(text.encode("latin-1"))
  with pytest.raises(InputError) as error:
    huggingface.load(tmp_path)
  _one_line(error, tmp_path / "config.json", "not JSON", "not a JSON object")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files(tmp_path, name):
  (written(tmp_path) / name).unlink()
  with pytest.raises(InputError) as error:
    huggingface.load(tmp_path)
  _one_line(error, tmp_path / name, "missing")


def sharded(folder):
  """Two shards and their index; returns the index."""
  written(folder)
  (folder / "model.safetensors").unlink()
  places = {name: f"model-0000{1 + ('mlp' in name)}-of-00002.safetensors" for name in drawn(GROUPED)}
  for file in set(places.values()):
    part = {name: array for name, array in drawn(GROUPED).items() if places[name] == file}
    safetensors.numpy.save_file(part, folder / file)
  return {"metadata": {"total_size": 1}, "weight_map": places}


def test_shards(tmp_path):
  (tmp_path / "model.safetensors.index.json").write_text(json.dumps(sharded(tmp_path)))
  model, params = huggingface.load(tmp_path)
  np.testing.assert_allclose(logits(model, params, GROUPED), GOLDEN[GROUPED]["logits"], atol=1e-4, rtol=1e-4)


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
  _one_line(error, tmp_path, message)


def test_wrong_parameters_are_not_written(tmp_path):
  model, params = scaled(CONFIG)
  for change, message in (
    ({"norm": {"scale": np.ones(15, np.float32)}}, "params: norm/scale is float32[15]; needs floats [16]"),
    ({"norm": {"scale": np.ones(16, np.int32)}}, "params: norm/scale is int32[16]"),
    ({"head": {"kernel": np.ones((16, 20), np.float32)}}, "params: head/kernel is not in a model"),
    ({"norm": {}}, "params: norm/scale is missing"),
  ):
    with pytest.raises(InputError) as error:
      huggingface.save(tmp_path / "new", model, params | change)
    assert message in str(error.value)
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_transformers_reads_what_we_write(tmp_path, tied, kv_heads):
  torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
  model, params = scaled(dataclasses.replace(CONFIG, tied=tied, kv_heads=kv_heads))
  huggingface.save(tmp_path, model, params)
  theirs, report = transformers.LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
  assert not any(report.values()), report
  tokens = np.random.default_rng(1).integers(0, 20, (3, 8))
  with torch.no_grad():
    wanted = theirs.eval()(torch.from_numpy(tokens)).logits.numpy()
  np.testing.assert_allclose(model.text(params, tokens), wanted, atol=1e-4, rtol=1e-4)
  theirs.save_pretrained(tmp_path / "theirs")
  again, found = huggingface.load(tmp_path / "theirs")
  assert again == model
  np.testing.assert_array_equal(again.text(found, tokens), model.text(params, tokens))
