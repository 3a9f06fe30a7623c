"""Figures 79-89: zeroing up to K = 100 neurons, in one shot and one after another.

Claim: as Figure 7. Iterative pruning, which takes the gradient anew after each neuron that was zeroed, stands beside
one shot in table and figure.

    python -m experiments.main --config=configs/fig79_prune_neurons.py:quick --workdir=runs

Cost on 2 CPU cores (estimates): smoke 1 minute; quick: the models of fig05_behaviour, then 10 minutes; paper needs an
accelerator.
"""

from configs import pcfg_common


def get_config(preset: str = "quick"):
  """The config of Figures 79-89."""
  config = pcfg_common.pcfg_config("fig79_prune_neurons", preset, measures=("pruning", "data"), report="pruning")
  config.pruning.scores = ("gradient", "gradient_iterative", "magnitude")
  if preset == "quick":
    config.pruning.ks = (0, 5, 10, 15, 20, 30, 40, 50, 75, 100)
  if preset == "paper":
    config.pruning.ks = tuple(range(101))
  return config.lock()
