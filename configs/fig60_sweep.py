"""Figures 60-75: Counting and Index at every learning rate, prior and n_iters.

Claim: as Figure 5, at every rate and n_iters.

    python -m experiments.main --config=configs/fig60_sweep.py:quick --workdir=runs

Cost on 2 CPU cores (estimates): smoke 2 minutes; quick (n_iters 400 and 800, two learning rates, C_Tr 0, 0.5, 0.8 and
1, one seed) 30 minutes; paper needs an accelerator.
"""

from configs import pcfg_common


def get_config(preset: str = "quick"):
  """The config of Figures 60-75."""
  config = pcfg_common.pcfg_config("fig60_sweep", preset, measures=("behaviour", "data"), report="pcfg_behaviour")
  config.tasks = ("counting", "index")
  if preset == "quick":
    config.seeds = (0,)
    config.pretrain.steps = (400, 800)
    config.finetune.learning_rates = (1e-3, 3e-4)
    config.finetune.c_trs = pcfg_common.C_TRS
    config.finetune.priors = ("low", "medium", "high")
  if preset == "paper":
    config.pretrain.steps = (10_000, 50_000, 100_000, 200_000)
    config.finetune.learning_rates = pcfg_common.LEARNING_RATES
    config.finetune.priors = ("low", "low_medium", "medium", "medium_high", "high")
  return config.lock()
