"""The Tracr half's own keys beside those of `configs.common`, with a reason for each number the paper does not give."""

from ml_collections import ConfigDict

from configs.common import answers_config, training_section

# eta_L, eta_M, eta_S, eta_VS (paper App. B)
LEARNING_RATES = (1e-1, 1e-2, 1e-3, 1e-4)
C_TRS = (0.0, 0.2, 0.5, 0.6, 0.8, 0.9, 1.0)


def tracr_config(name: str, preset: str, *, measures: tuple[str, ...], report: str) -> ConfigDict:
  """A config with every key of the Tracr half; the caller changes what its figure needs and locks it.

  Arguments and errors are those of `configs.common.answers_config`.
  """
  config = answers_config(name, preset, setting="tracr", measures=measures, report=report)
  config.tasks = ("counter", "max_identifier")
  config.counter = _counter(preset)
  config.max_identifier = _max_identifier(preset)
  # Compile `Select(bin, indices, ==)` as the paper lists it; see tracr_tasks.counter_program.
  config.reading = "literal"
  config.mlp_exactness = 0  # 0: the smallest that is exact for the length, 2n(n+1)
  config.training = _training(preset)
  config.finetune.learning_rates = LEARNING_RATES
  config.reft.learning_rates = (1e-3,)
  # Strings whose maps are drawn: the config's own, or else the first `drawn` of the C_Te = 0 test set.
  config.maps = ConfigDict(
    {
      "draw": "attention",
      "inputs": {"counter": (), "max_identifier": ()},
      "drawn": 1 if preset == "smoke" else 2,
      "eval_size": 16 if preset == "smoke" else 200,
    }
  )
  return config


def _counter(preset: str) -> ConfigDict:
  """Strings of 45 letters ("about 45") and 2 pads: max_seq_len 47 puts `one` and `tokens:b` on the residual
  rows 97 and 148 of the paper's weight names B1WV97-0 and B1WK148-1."""
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
  return training_section(
    preset,
    steps=steps,
    evals=evals,
    # "SGD with momentum". dampening = momentum would average gradients instead of summing them, the same as a tenth
    # of the rate: nearer to Table 3 at η_VS, farther at η_L (results/README.md has both).
    momentum=0.9,
    dampening=0.0,
    # Not in the paper; without it lr 1e-1 diverges, and Counter of 45 letters even with it. It says how long steps
    # are wherever gradients are clipped, as all are in most of Max-identifier's cells (results/README.md).
    clip_norm=1.0,
    trained="all",
    loss_positions="answer",
    logit_scale=1.0,
    eval_size=32 if preset == "smoke" else 1000,
  )
