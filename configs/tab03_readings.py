"""Table 3's readings: what the paper leaves open, varied one at a time.

The paper states neither momentum, nor a gradient clip, nor a noise that leaves the compiled capability whole, nor
which positions and parameters the loss and the updates cover. Each row of the table changes one of them from the
default of `configs/tracr_common.py`. Nothing is chosen by its closeness to the paper's table; this shows what a choice
would have done. Momentum 0, averaged momentum and a clip of 0.1 are nearly one reading: where every gradient is
clipped, each makes steps a tenth as long.

    python -m experiments.main --config=configs/tab03_readings.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 2 minutes; quick 17 minutes; paper 1 hour for Max-identifier, 7 for Counter (estimates).
"""

from configs import tracr_common

READINGS = (
  # (name, key, value); `task.` stands for the task's own section
  ("default", "training.momentum", 0.9),
  ("momentum 0", "training.momentum", 0.0),
  ("averaged momentum", "training.dampening", 0.9),
  ("clip 0.1", "training.clip_norm", 0.1),
  ("clip 10", "training.clip_norm", 10.0),
  ("no clip", "training.clip_norm", 0.0),
  ("no noise", "task.noise_std", 0.0),
  ("noise 1e-3", "task.noise_std", 1e-3),
  ("matrices only", "training.trained", "matrices"),
  ("no embeddings", "training.trained", "no_embeddings"),
  ("loss at all letters", "training.loss_positions", "letters"),
  ("logits times 0.1", "training.logit_scale", 0.1),
  ("logits times 10", "training.logit_scale", 10.0),
)


def get_config(preset: str = "quick"):
  """The config of the readings."""
  config = tracr_common.tracr_config("tab03_readings", preset, measures=("readings", "data"), report="readings")
  config.readings = READINGS[:3] if preset == "smoke" else READINGS
  config.seeds = (0,)
  if preset != "paper":
    config.finetune.learning_rates = (1e-1, 1e-2)
  return config.lock()
