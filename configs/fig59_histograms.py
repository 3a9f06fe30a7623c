"""Figure 59: which labels are predicted before and after pruning.

Claim: pruning does not collapse the predictions to one label; the revived accuracy is not a constant answer's.

    python -m experiments.main --config=configs/fig59_histograms.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick 5 minutes; paper: the models of tab03_behaviour at C_Tr 0 and 1, then
about a minute for each Counter model.
"""

from configs import tracr_common


def get_config(preset: str = "quick"):
  """The config of Figure 59."""
  config = tracr_common.tracr_config("fig59_histograms", preset, measures=("pruning", "data"), report="pruning")
  config.pruning.histogram_ks = (0, 1, 4, 10) if preset != "smoke" else (0, 1)
  config.pruning.ks = (0, 1, 4, 10) if preset != "smoke" else (0, 1)
  return config.lock()
