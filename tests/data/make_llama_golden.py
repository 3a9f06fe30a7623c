"""Makes llama_golden.json: logits that transformers computes from weights that NumPy draws.

    python -m pip install torch==2.13.0 transformers==5.24.0 safetensors
    python tests/data/make_llama_golden.py

The file has, for each case, config.json and the tensors' names and shapes as transformers wrote them, and tokens [2, 6]
with their logits [2, 6, V]. Weights are no part of it: `weights` draws them again from the seed.
"""

import json
import pathlib
import tempfile

import numpy as np

CASES = {
  "tied, 4 heads on 2": {"tie_word_embeddings": True, "num_attention_heads": 4, "num_key_value_heads": 2},
  "untied, 2 heads on 1, eps and theta": {
    "tie_word_embeddings": False,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 0.05,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50.0},
  },
  "untied, all heads": {"tie_word_embeddings": False, "num_attention_heads": 2, "num_key_value_heads": 2},
}
SIZES = {
  "vocab_size": 20,
  "hidden_size": 16,
  "intermediate_size": 24,
  "num_hidden_layers": 2,
  "max_position_embeddings": 8,
}


def weights(shapes, seed):
  """float32 by name, drawn in the order of sorted names; large enough that a mistake in any of them shows."""
  generator = np.random.default_rng(seed)
  found = {}
  for name in sorted(shapes):
    draw = generator.standard_normal(shapes[name])
    found[name] = (1 + draw / 4 if len(shapes[name]) == 1 else draw * 2 / shapes[name][1] ** 0.5).astype(np.float32)
  return found


def main():
  import torch
  import transformers

  golden = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}, "cases": {}}
  for seed, (name, settings) in enumerate(CASES.items()):
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, **settings)).eval()
    with tempfile.TemporaryDirectory() as folder:
      model.save_pretrained(folder)
      config = (pathlib.Path(folder) / "config.json").read_text()
    names = [n for n in model.state_dict() if not (settings["tie_word_embeddings"] and n == "lm_head.weight")]
    shapes = {n: list(model.state_dict()[n].shape) for n in names}
    drawn = {n: torch.from_numpy(array) for n, array in weights(shapes, seed).items()}
    model.load_state_dict(drawn, strict=False)
    model.tie_weights()
    tokens = np.random.default_rng(seed).integers(0, SIZES["vocab_size"], (2, 6))
    with torch.no_grad():
      logits = model.double()(torch.from_numpy(tokens)).logits.numpy()
    golden["cases"][name] = {
      "seed": seed, "config": config, "shapes": shapes, "tokens": tokens.tolist(),
      "logits": np.round(logits, 5).tolist(),
    }  # fmt: skip
  path = pathlib.Path(__file__).with_name("llama_golden.json")
  text = json.dumps(golden, separators=(",", ":")).replace('},"', '},\n"').replace("]],[[", "]],\n[[")
  path.write_text(text + "\n")


if __name__ == "__main__":
  main()
