"""Table 4: the reFT grid, fine-tuning's learning rate by reFT's.

Claims: reFT at a smaller learning rate than the fine-tuning's recovers the pretraining capability (Acc. O_PT ends
above `reft.threshold` at C_Te = 0), the sooner the larger its rate, and sooner than Scr. + FT at the same reFT rate
learns it. Every pair of rates of which reFT's is the smaller. The paper's table is not among the numbers we compare
with; its set-up is.

    python -m experiments.main --config=configs/tab04_reft_grid.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick 12 minutes; paper 1 hour for Max-identifier, 6 for Counter (estimates).
"""

from configs import tracr_common


def get_config(preset: str = "quick"):
  """The config of Table 4."""
  config = tracr_common.tracr_config("tab04_reft_grid", preset, measures=("behaviour", "data"), report="revival")
  config.finetune.learning_rates = (1e-1, 1e-2, 1e-3)
  config.reft.measure = True
  config.reft.learning_rates = (1e-2, 1e-3, 1e-4)
  return config.lock()
