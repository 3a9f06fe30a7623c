"""Figures 55, 56: zeroing single weights W1..W4.

Claim: with C_Tr = 1 zeroing one weight lifts Acc. O_PT by more than 60 points. W1..W4 are the weights that the
gradient score ranks first, each zeroed alone. W1 decides, beside a random weight of the same scope; the best of the
four is chosen on the test set and only named.

    python -m experiments.main --config=configs/fig55_single_weights.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick 5 minutes; paper: the models of tab03_behaviour at C_Tr 0 and 1, then
about a minute for each Counter model.
"""

from configs import tracr_common


def get_config(preset: str = "quick"):
  """The config of Figures 55, 56."""
  config = tracr_common.tracr_config("fig55_single_weights", preset, measures=("pruning", "data"), report="pruning")
  config.pruning.single_weights = 4
  config.pruning.ks = (0, 1)
  return config.lock()
