"""Figures 28-30: randFT; wrong answers trained on purpose, and O_PT comes back all the same (App. E.4).

Claim: after training the count of b as the answer where a is asked, reFT revives O_PT as fast as after plain
fine-tuning, and faster than a network without training (Scr.) or pretrained without O_PT (Scr. + FT) learns it.

    python -m experiments.main --config=configs/fig28_randft.py:quick --workdir=runs

Cost on 2 CPU cores (estimates): smoke 1 minute; quick: the models of fig09_reft, then 4 minutes; paper needs an
accelerator.
"""

from configs import pcfg_common


def get_config(preset: str = "quick"):
  """The config of Figures 28-30."""
  config = pcfg_common.pcfg_config("fig28_randft", preset, measures=("behaviour", "data"), report="revival")
  config.finetune.targets = ("ft", "random")
  config.reft.measure = config.reft.scratch = True
  return config.lock()
