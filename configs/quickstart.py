"""The whole argument on one small model: was the capability deleted, or wrapped?

Counter on strings of 12 letters is compiled by Tracr, fine-tuned to count b's with and without the spurious
correlation, pruned, and reverse fine-tuned beside the Scr. + FT control. Smaller than any of the paper's figures: it
shows the phenomenon, not the paper's numbers (results/ holds what was run of them).

    python -m experiments.main --config=configs/quickstart.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 20 seconds; quick 1 minute; paper (45 letters, 10K steps, 5 seeds) 2 hours (estimate).
"""

from configs import tracr_common


def get_config(preset: str = "quick"):
  """The config of `make demo`."""
  config = tracr_common.tracr_config(
    "quickstart", preset, measures=("behaviour", "pruning", "data"), report="quickstart"
  )
  config.tasks = ("counter",)
  config.finetune.learning_rates = (1e-1,)
  config.reft.measure = True
  config.reft.learning_rates = (1e-2,)
  config.pruning.scores = ("gradient",)
  if preset == "quick":
    config.counter.task.num_letters = 12
    config.training.steps = 1000
    config.training.warmup_steps = 200
    config.training.eval_steps = (*(e for e in config.training.eval_steps if e < 1000), 1000)
    config.pruning.ks = (0, 1, 2, 4, 7, 10)
  return config.lock()
