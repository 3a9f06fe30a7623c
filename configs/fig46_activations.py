"""Figures 46-47, 53-54: hidden units of the MLPs, by channel, before and after fine-tuning.

The paper's claim, that fine-tuning changes few of the units that the compiled program uses, is shown and not judged: it
names no number. Maps of position by channel for chosen strings, and over the test set how far each block's units moved,
relative to their size in the compiled model.

    python -m experiments.main --config=configs/fig46_activations.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick 3 minutes; paper as tab03_behaviour at one learning rate, with which it
shares its models.
"""

from configs import tracr_common


def get_config(preset: str = "quick"):
  """The config of Figure 46 and its family."""
  config = tracr_common.tracr_config("fig46_activations", preset, measures=("maps", "behaviour"), report="maps")
  config.finetune.learning_rates = (1e-2,)
  config.maps.draw = "hidden"
  return config.lock()
