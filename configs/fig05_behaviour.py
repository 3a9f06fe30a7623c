"""Figure 5: what fine-tuning does to a capability learned in pretraining, by prior and C_Tr.

Claim: where O_FT was hardly asked for in pretraining (low prior), fine-tuning with C_Tr = 1 learns the shortcut: Acc.
O_FT near 1 at C_Te = 1 and near 0 at C_Te = 0; with C_Tr = 0 it learns O_FT outright. A high prior keeps O_FT whole for
longer.
The paper saw, Counting, 200K pretraining and 10K fine-tuning iterations at eta_M, low prior, C_Tr = 1: Acc. O_FT 100 at
C_Te = 1 and 0 at C_Te = 0; high prior after 1K: 99.8 and 90.1.

    python -m experiments.main --config=configs/fig05_behaviour.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick (24-token windows, width 64, 2 blocks, 800 + 200 steps, 3 seeds) 2 minutes;
paper (5 seeds, 200K pretraining steps of 0.5 TFLOP each) needs an accelerator.
"""

from configs import pcfg_common


def get_config(preset: str = "quick"):
  """The config of Figure 5."""
  config = pcfg_common.pcfg_config("fig05_behaviour", preset, measures=("behaviour", "data"), report="pcfg_behaviour")
  return config.lock()
