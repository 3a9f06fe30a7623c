"""Figure 57: Acc. O_PT and O_FT by the number K of zeroed weights.

Claims: with C_Tr = 1 zeroing a few weights brings Acc. O_PT back (lifts it by 10 points, and by 10 more than random
pruning does); with C_Tr = 0 it does not (less than 10 points). Models with less than 10 points to lose are not judged.
Beside the paper's score +w * dL/dw: |w * dL/dw|, magnitude and random; beside the scope of near-zero weights: all
weights.

    python -m experiments.main --config=configs/fig57_prune_weights.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick 5 minutes; paper: the models of tab03_behaviour at C_Tr 0 and 1, then
about a minute for each Counter model.
"""

from configs import tracr_common


def get_config(preset: str = "quick"):
  """The config of Figure 57."""
  config = tracr_common.tracr_config("fig57_prune_weights", preset, measures=("pruning", "data"), report="pruning")
  config.pruning.scopes = ("near_zero", "all")
  return config.lock()
