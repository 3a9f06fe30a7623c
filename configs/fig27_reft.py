"""Figure 27: reverse fine-tuning revives the old capability sooner than Scr. + FT learns it.

Claim: after fine-tuning, reFT on the pretraining task brings Acc. O_PT back in fewer iterations than a model compiled
for O_FT (Scr. + FT) needs to learn O_PT by the same recipe. The paper shows the curves and names no threshold; ours is
`reft.threshold`, with censored runs treated as censored, and how many times fewer is reported with its interval.

    python -m experiments.main --config=configs/fig27_reft.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick 6 minutes; paper 15 minutes for Max-identifier, 3 hours for
Counter (estimates).
"""

from configs import tracr_common


def get_config(preset: str = "quick"):
  """The config of Figure 27."""
  config = tracr_common.tracr_config("fig27_reft", preset, measures=("behaviour", "data"), report="revival")
  config.finetune.learning_rates = (1e-1, 1e-2)
  config.reft.measure = True
  return config.lock()
