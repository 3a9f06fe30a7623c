"""What all configs of the Tracr half share, with the reason beside every number the paper does not give.

Presets: `smoke` runs the path in seconds and shows nothing; `quick` shows the phenomenon on two CPU cores in
minutes; `paper` has the paper's numbers.
"""

from ml_collections import ConfigDict

from finetune_wrappers.types import InputError

PRESETS = ("smoke", "quick", "paper")

# eta_L, eta_M, eta_S, eta_VS (paper App. B)
LEARNING_RATES = (1e-1, 1e-2, 1e-3, 1e-4)
C_TRS = (0.0, 0.2, 0.5, 0.6, 0.8, 0.9, 1.0)

# "Same recipe with a smaller learning rate" than the fine-tuning's. reFT strings carry no correlation: with it,
# answering for O_FT minus q would pass for the old capability. Revived means Acc. O_PT of `threshold` at C_Te = 0; the
# paper names no threshold.
REFT = {"measure": False, "c_tr": 0.0, "threshold": 0.8}


def tracr_config(name: str, preset: str, *, measures: tuple[str, ...], report: str) -> ConfigDict:
  """A config with every key of the Tracr half; the caller changes what its figure needs and locks it.

  Args:
    name: of the experiment and of its folder in the workdir.
    preset: one of PRESETS.
    measures: modules of `experiments.measures` that run on the trained models.
    report: module of `experiments.reports` that draws figures and tables from their rows.

  Raises:
    InputError: for another preset.
  """
  if preset not in PRESETS:
    raise InputError(f"preset: {preset!r} is not one of {', '.join(PRESETS)}")
  config = ConfigDict()
  config.name = name
  config.setting = "tracr"
  config.measures = measures
  config.report = report
  config.preset = preset
  config.seeds = {"smoke": (0, 1), "quick": (0, 1, 2), "paper": (0, 1, 2, 3, 4)}[preset]
  config.tasks = ("counter", "max_identifier")
  config.counter = _counter(preset)
  config.max_identifier = _max_identifier(preset)
  # Compile `Select(bin, indices, ==)` as the paper lists it; see tracr_tasks.counter_program.
  config.reading = "literal"
  config.mlp_exactness = 0  # 0: the smallest that is exact for the length, 2n(n+1)
  config.training = _training(preset)
  # `curves` keeps every evaluation of the fine-tuning in the rows, not only the first, 1K steps and the last.
  config.finetune = ConfigDict(
    {"learning_rates": LEARNING_RATES, "c_trs": (0.0, 1.0), "targets": ("ft",), "curves": False}
  )
  config.reft = ConfigDict({**REFT, "learning_rates": (1e-3,)})
  config.pruning = pruning_section(preset)
  # Strings whose maps are drawn: the config's own, or else the first `drawn` of the C_Te = 0 test set.
  config.maps = ConfigDict(
    {
      "draw": "attention",
      "inputs": {"counter": (), "max_identifier": ()},
      "drawn": 1 if preset == "smoke" else 2,
      "eval_size": 16 if preset == "smoke" else 200,
    }
  )
  # Programs over lanes: 0 chooses lanes and layout by a short calibration.
  config.lanes_per_program = 0
  config.layout = ConfigDict({"devices": 1 if preset == "smoke" else 0, "inner": "map"})
  config.checkpoint_seconds = 60.0
  # Whether compiled programs are kept in the workdir: auto (on accelerators), on, off (experiments/compiled.py).
  config.compilation_cache = "auto"
  return config


def pruning_section(preset: str) -> ConfigDict:
  """How models are pruned, for both halves."""
  smoke = preset == "smoke"
  return ConfigDict(
    {
      "scores": ("gradient", "gradient_abs", "magnitude"),  # the first is the paper's +w * dL/dw; random always runs
      # `all` removes what the compiler built along with the wrapper (configs/fig57_prune_weights.py shows both).
      "scopes": ("near_zero",),
      "units": ("weight",),
      "ks": (0, 1, 2) if smoke else tuple(range(21)),
      "iterative_every": 1,  # units zeroed between two gradients of the score `gradient_iterative`
      "single_weights": 0,
      "histogram_ks": (),
      "batch_size": 64 if smoke else 1000,
      "eval_size": 32 if smoke else 500,
      "random_draws": 2 if smoke else 10,
    }
  )


def _counter(preset: str) -> ConfigDict:
  """Strings of 45 letters ("about 45") and 2 pads: max_seq_len 47 puts `one` and `tokens:b` on the residual
  rows 97 and 148 that the paper's weight names B1WV97-0 and B1WK148-1 say."""
  letters = {"smoke": 6, "quick": 20, "paper": 45}[preset]
  return ConfigDict(
    {
      "task": {
        "num_letters": letters,
        "vocab_size": 9,
        "num_pads": 2,
        "q": 1,
        "distinct_answers_in_test": True,
      },
      # The paper's N(0, 0.001) is neither a standard deviation nor a variance that leaves the compiled
      # capability whole. This is the largest power of ten that does at 45 letters (Acc. O_PT 100 % at 1e-6,
      # 0 to 75 % at 1e-5): the units of the counting MLP reach 2n(n+1), and noise on their weights grows with them.
      "noise_std": 1e-6,
      "microbatches": 8 if preset == "paper" else 1,
    }
  )


def _max_identifier(preset: str) -> ConfigDict:
  """Strings of 9 letters ("about 9-10") and 2 pads. q = 1 cannot be for the 5th and 7th of distinct letters."""
  del preset
  return ConfigDict(
    {
      "task": {"num_letters": 9, "vocab_size": 26, "num_pads": 2, "q": 2, "rank_pt": 5, "rank_ft": 7},
      "noise_std": 1e-4,  # as above: Acc. O_PT 100 % at 1e-4, 90 to 99 % at 3e-4, 0 to 12 % at 1e-3
      "microbatches": 1,
    }
  )


def _training(preset: str) -> ConfigDict:
  steps = {"smoke": 6, "quick": 2000, "paper": 10_000}[preset]
  # Close together where revival happens; all of them cost about 5 % of the training.
  evals = (0, 10, 20, 50, *range(100, 2000, 100), *range(2000, 10_001, 250))
  return ConfigDict(
    {
      "steps": steps,
      "batch_size": 8 if preset == "smoke" else 96,
      "warmup_steps": steps // 5,  # 2K of 10K
      "final_fraction": 0.01,
      # "SGD with momentum". dampening = momentum would average gradients instead of summing them, the same as a tenth
      # of the rate: nearer to Table 3 at η_VS, farther at η_L (results/README.md has both).
      "momentum": 0.9,
      "dampening": 0.0,
      # Not in the paper; without it lr 1e-1 diverges, and Counter of 45 letters even with it. It says how long steps
      # are wherever gradients are clipped, as all are in most of Max-identifier's cells (results/README.md).
      "clip_norm": 1.0,
      "trained": "all",
      "loss_positions": "answer",
      "logit_scale": 1.0,
      "eval_steps": tuple(e for e in evals if e < steps) + (steps,),
      "eval_size": 32 if preset == "smoke" else 1000,
    }
  )
