"""Hugging Face folders of a Llama: against logits of transformers. Damage is in test_huggingface_damage.py."""

import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from finetune_wrappers.models.formats import huggingface
from finetune_wrappers.models.llama_layers import LlamaConfig
from finetune_wrappers.types import InputError
from tests.llamas import DOWN, GOLDEN, GROUPED, HEAD, TIED, WHOLE, drawn, scaled, sharded, written

CONFIG = LlamaConfig(
  vocab_size=20, length=8, blocks=2, heads=4, kv_heads=2, width=16, hidden=24, rope_theta=77.0, norm_eps=1e-3, tied=True
)


def logits(model, params, name):
  return np.asarray(model.text(params, np.array(GOLDEN[name]["tokens"])))


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


def test_a_tied_file_may_have_its_head_too(tmp_path):
  both = drawn(TIED) | {HEAD: drawn(TIED)["model.embed_tokens.weight"]}
  model, params = huggingface.load(written(tmp_path, TIED, tensors=both))
  np.testing.assert_allclose(logits(model, params, TIED), GOLDEN[TIED]["logits"], atol=1e-4, rtol=1e-4)


def test_rotary_frequencies_of_old_files_are_not_read(tmp_path):
  extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
  huggingface.load(written(tmp_path, TIED, tensors=drawn(TIED) | extra))


def test_shards(tmp_path):
  (tmp_path / "model.safetensors.index.json").write_text(json.dumps(sharded(tmp_path)))
  model, params = huggingface.load(tmp_path)
  np.testing.assert_allclose(logits(model, params, GROUPED), GOLDEN[GROUPED]["logits"], atol=1e-4, rtol=1e-4)


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
