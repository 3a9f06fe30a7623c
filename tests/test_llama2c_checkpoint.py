"""Training checkpoints of llama2.c, `.pt`; with torch only."""

import dataclasses
import pathlib
import tempfile

import numpy as np
import pytest

from finetune_wrappers.models.formats import llama2c
from finetune_wrappers.types import InputError
from tests.llama2c_by_hand import SHAPES, TOKENS, Reader, model_of, ours


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
