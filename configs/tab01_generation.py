"""Table 1: a deleted feature of stories is back in far fewer iterations than a model without it learns it.

Claim: reverse fine-tuning on stories with a Twist brings the share of generated stories that have one back at once,
whichever protocol deleted it; a control that was pretrained without any such story takes longer. The paper: 44 to
81 % after 30 iterations for Filtering at eta_M, the control 12 to 31 %.

    python -m experiments.main --config=configs/tab01_generation.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick: 9 minutes; paper needs an accelerator and the real data
(docs/stories.md).
"""

from configs import stories_common


def get_config(preset: str = "quick"):
  """The config of tab01."""
  config = stories_common.stories_config(
    "tab01_generation", preset, measures=("behaviour", "story_data", "story_samples"), report="story_table"
  )
  return config.lock()
