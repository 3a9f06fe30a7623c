"""Figure 11: a deleted feature of stories: its loss as it is revived, and what probes still read of it.

Claim: the loss on Twist stories falls sooner in reverse fine-tuning than in a control's training, and probes of deleted
models lie between those of models pretrained with Twist and without, near the former.

    python -m experiments.main --config=configs/fig11_twist.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick: the models of tab01_generation, then 1 minute; paper needs an
accelerator and the real data
(docs/stories.md).
"""

from configs import stories_common


def get_config(preset: str = "quick"):
  """The config of fig11."""
  config = stories_common.stories_config(
    "fig11_twist", preset, measures=("behaviour", "feature_probes"), report="story_overview"
  )
  return config.lock()
