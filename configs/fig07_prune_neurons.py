"""Figure 7: zeroing a few neurons of a fine-tuned PCFG model brings O_PT back.

Claim: with C_Tr = 1, zeroing the 5 to 15 neurons (rows of weight matrices) that lower the pretraining loss most
revives Acc. O_PT, and Acc. O_FT falls; with C_Tr = 0 nothing comes back. Embeddings and head are left out.

    python -m experiments.main --config=configs/fig07_prune_neurons.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick: the models of fig05_behaviour, then 1 minute; paper needs an
accelerator.
"""

from configs import pcfg_common


def get_config(preset: str = "quick"):
  """The config of Figure 7."""
  config = pcfg_common.pcfg_config("fig07_prune_neurons", preset, measures=("pruning", "data"), report="pruning")
  return config.lock()
