"""Table 3: what fine-tuning does to a compiled capability, by learning rate and C_Tr.

Claim: with C_Tr = 0 the new task is learned outright; with C_Tr = 1 the model answers for O_FT only where the
spurious correlation holds, and where it does not (C_Te = 0) Acc. O_FT collapses and part of Acc. O_PT shows through.
The paper saw, in percent at C_Te = 0, Acc. O_PT / O_FT: Counter at eta_L, C_Tr = 0: 0 / 100, C_Tr = 1: 35.8 / 0.7;
Max-identifier at eta_L, C_Tr = 0: 0 / 99.3, C_Tr = 1: 16.8 / 37.8.

    python -m experiments.main --config=configs/tab03_behaviour.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick (20-letter Counter, 2K steps, 3 seeds, C_Tr 0 and 1) 5 minutes; paper
(45 letters, 10K steps, 5 seeds, all 28 cells a task) 1 hour for Max-identifier and 9 for Counter (estimates from half
a minute and 7 minutes a lane with both cores at work; older machines took three times as long).
"""

from configs import tracr_common


def get_config(preset: str = "quick"):
  """The config of Table 3."""
  config = tracr_common.tracr_config("tab03_behaviour", preset, measures=("behaviour", "data"), report="behaviour")
  if preset == "paper":
    config.finetune.c_trs = tracr_common.C_TRS
  return config.lock()
