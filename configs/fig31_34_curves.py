"""Figures 31-34: loss and generation score while Twist is deleted, and while it is revived.

Claim: the protocols raise the loss on Twist stories and lower the score; reverse fine-tuning undoes both within tens of
iterations, well before the control.

    python -m experiments.main --config=configs/fig31_34_curves.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick: the models of tab01_generation, then 10 seconds; paper needs an
accelerator and the real data
(docs/stories.md).
"""

from configs import stories_common


def get_config(preset: str = "quick"):
  """The config of fig31."""
  config = stories_common.stories_config(
    "fig31_34_curves", preset, measures=("behaviour", "story_data"), report="story_curves"
  )
  return config.lock()
