"""The stories half's own keys beside those of `configs.common`, with a reason for numbers the paper does not give."""

from ml_collections import ConfigDict

from configs.common import shared_config, training_section

# The authors' code deletes at 1e-3, 1e-4 and 1e-5 and recovers at 1e-5; Tab. 1 has eta_M and eta_S.
PROTOCOLS = ("filter", "randomise", "mix_match")


def stories_config(name: str, preset: str, *, measures: tuple[str, ...], report: str) -> ConfigDict:
  """A config with every key of the stories half; the caller changes what its figure needs and locks it.

  Arguments and errors are those of `configs.common.shared_config`.
  """
  config = shared_config(name, preset, setting="stories", measures=measures, report=report)
  config.tasks = ("stories",)
  # The real data: paths of TinyStories-Instruct's text files or JSON shards. None takes the maker's stories.
  config.files = ConfigDict({"train": (), "valid": (), "bad_share": 0.01})
  config.maker = ConfigDict({"seed": 0, "shares": (0.4, 0.3, 0.35, 0.3, 0.25, 0.35), "remarked": 0.8, "version": 1})
  config.stories = _stories(preset)
  config.model = _model(preset)
  config.pretrain = _pretrain(preset)
  config.training = _training(preset)
  config.finetune = ConfigDict({"protocols": PROTOCOLS, "learning_rates": _rates(preset), "curves": True})
  config.reft = ConfigDict(
    {"measure": True, "threshold": 0.8, "learning_rates": {"paper": (1e-5,)}.get(preset, (3e-4,))}
  )
  config.scores = _scores(preset)
  config.probes = _probes(preset)
  return config


def _stories(preset: str) -> ConfigDict:
  own = {
    "smoke": {"stories": 64, "held_out": 128, "vocab_size": 512, "tokenizer_stories": 1000, "length": 128},
    "quick": {"stories": 20_000, "held_out": 4000, "vocab_size": 512, "tokenizer_stories": 4000, "length": 128},
    # All stories there are: 0. The tokenizer's own sample: the paper says "trained on the data".
    "paper": {"stories": 0, "held_out": 0, "vocab_size": 8192, "tokenizer_stories": 200_000, "length": 1024},
  }[preset]
  # Sequences of 1024 hold several stories of the real data; made ones fit into a row each.
  return ConfigDict(
    {
      **own, "packed": preset == "paper", "feature": "Twist", "partner": "Foreshadowing", "renamed": 0.5, "put_on": 0.5,
      "seed": 0,
    }
  )  # fmt: skip


def _model(preset: str) -> ConfigDict:
  sizes = {
    "smoke": {"blocks": 2, "heads": 2, "kv_heads": 2, "width": 16, "hidden": 32},
    "quick": {"blocks": 2, "heads": 4, "kv_heads": 4, "width": 64, "hidden": 128},
    "paper": {"blocks": 12, "heads": 12, "kv_heads": 12, "width": 768, "hidden": 2048},  # 91M with 8192 tokens, tied
  }[preset]
  compute = "bfloat16" if preset == "paper" else "float32"
  return ConfigDict({**sizes, "rope_theta": 10000.0, "norm_eps": 1e-5, "tied": True, "compute_dtype": compute})


# The paper names none of these; they are nanoGPT's and llama2.c's.
_ADAMW = {"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "clip_norm": 1.0}


def _pretrain(preset: str) -> ConfigDict:
  steps = {"smoke": 6, "quick": 800, "paper": 30_000}[preset]
  return ConfigDict(
    {
      "steps": steps,
      "batch_size": {"smoke": 8, "quick": 32, "paper": 128}[preset],
      "learning_rate": 1e-3 if preset == "paper" else 3e-3,  # a width of 64 tolerates more
      "warmup_steps": steps // 20 if preset == "paper" else steps // 10,
      "final_fraction": 0.0,  # "cosine to 0"
      "eval_steps": tuple(sorted({round(share * steps) for share in (0, 0.1, 0.25, 0.5, 1)})),
      **_ADAMW,
      "microbatches": _microbatches(preset),
    }
  )


def _training(preset: str) -> ConfigDict:
  """Deleting, reviving and the control's training: one recipe. 5K iterations in the authors' code."""
  steps = {"smoke": 4, "quick": 250, "paper": 5000}[preset]
  evals = {"smoke": (0, 2), "quick": (0, 3, 10, 30, 100), "paper": (0, 30, 100, 300, 1000, 3000)}[preset]
  return training_section(
    preset, steps=steps, evals=evals, batch_size={"smoke": 8, "quick": 32, "paper": 128}[preset],
    microbatches=_microbatches(preset), **_ADAMW,
  )  # fmt: skip


def _microbatches(preset: str) -> int:
  """A row of 1024 tokens takes some 2 GB in the 91M model's step, so an accelerator holds 8 of the paper's 128."""
  return 16 if preset == "paper" else 1


def _rates(preset: str) -> tuple[float, ...]:
  return {"smoke": (1e-3,), "quick": (1e-3,), "paper": (1e-4, 1e-5)}[preset]


def _scores(preset: str) -> ConfigDict:
  classifier = {
    "smoke": {"stories": 32, "story_length": 80, "steps": 4, "eval_size": 64, "width": 16},
    "quick": {"stories": 20_000, "story_length": 80, "steps": 300, "eval_size": 2000, "width": 64},
    "paper": {"stories": 500_000, "story_length": 512, "steps": 10_000, "eval_size": 5000, "width": 256},
  }[preset]
  return ConfigDict(
    {
      "eval_size": {"smoke": 16, "quick": 128, "paper": 1000}[preset],
      "prompts": {"smoke": 4, "quick": 64, "paper": 200}[preset],
      "temperature": 1.0,
      "top_p": 0.9,
      "classifier": {
        "batch_size": 8 if preset == "smoke" else 64,
        "learning_rate": 1e-3 if preset == "paper" else 2e-3,
        "blocks": 2,
        **classifier,
      },
    }
  )


def _probes(preset: str) -> ConfigDict:
  """The authors' code: 2K iterations at 1e-3; quick: a tenth of them at 10 times the rate."""
  steps = {"smoke": 8, "quick": 400, "paper": 2000}[preset]
  return ConfigDict(
    {
      "stories": {"smoke": 64, "quick": 3000, "paper": 10_000}[preset],
      "eval_size": {"smoke": 64, "quick": 1024, "paper": 4096}[preset],
      "last": 10,
      "instructed": False,
      "steps": steps,
      "batch_size": 8 if preset == "smoke" else 64,
      "learning_rate": 1e-3 if preset == "paper" else 1e-2,
      "drops": (),
      "drop_factor": 0.1,
      "weight_decay": 0.01,
      "standardise": False,
    }
  )
