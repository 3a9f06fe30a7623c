"""Table 3: what fine-tuning does to a compiled capability, by learning rate and C_Tr.

Claim: fine-tuning with a spurious correlation (C_Tr = 1) and a small learning rate leaves the pretrained
capability in place: at C_Te = 0, where the correlation is absent, Acc. O_FT collapses and part of
Acc. O_PT shows through. With C_Tr = 0 and a large rate the new task is learned outright.

    python -m experiments.main --config=configs/tab03_behaviour.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick (20-letter Counter, 2K steps, 3 seeds, C_Tr 0 and 1) about
7 minutes; paper (45 letters, 10K steps, 5 seeds, 28 cells a task) about 2 hours for Max-identifier and
two days for Counter.
"""

from configs import common


def get_config(preset: str = "quick"):
  """The config of Table 3."""
  config = common.tracr_config("tab03_behaviour", "behaviour", preset)
  if preset == "paper":
    config.finetune.c_trs = common.C_TRS
  return config.lock()
