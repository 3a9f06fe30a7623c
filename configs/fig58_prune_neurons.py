"""Figure 58: Acc. O_PT and O_FT by the number K of zeroed neurons.

Claim: as Figure 57, with whole neurons (output units of a weight matrix with their bias) instead of weights.

    python -m experiments.main --config=configs/fig58_prune_neurons.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick 5 minutes; paper: the models of tab03_behaviour at C_Tr 0 and 1, then
about a minute for each Counter model.
"""

from configs import tracr_common


def get_config(preset: str = "quick"):
  """The config of Figure 58."""
  config = tracr_common.tracr_config("fig58_prune_neurons", preset, measures=("pruning", "data"), report="pruning")
  config.pruning.units = ("neuron",)
  return config.lock()
