"""randFT on Tracr (App. E.4): reFT after fine-tuning on wrong answers, beside reFT after plain fine-tuning.

Claims: a model trained to answer wrongly on purpose still has the capability: reFT revives it about as fast as after
plain fine-tuning (in at most twice the iterations), and sooner than Scr. + FT learns it. A compiled model has no
operand in its prompt, so "wrong answers for the old task" is the O_PT answer of another string: labels keep their
distribution and say nothing.

    python -m experiments.main --config=configs/randft_tracr.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick 6 minutes; paper 15 minutes for Max-identifier, 3 hours for
Counter (estimates).
"""

from configs import tracr_common


def get_config(preset: str = "quick"):
  """The config of randFT on Tracr."""
  config = tracr_common.tracr_config("randft_tracr", preset, measures=("behaviour", "data"), report="revival")
  config.finetune.learning_rates = (1e-1, 1e-2)
  config.finetune.c_trs = (0.0,)
  config.finetune.targets = ("ft", "random")
  config.reft.measure = True
  return config.lock()
