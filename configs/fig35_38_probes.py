"""Figures 35-38: linear probes of every feature, by block.

Claim: after deletion probes still read Twist from the last activations of a story, nearly as from the pretrained model;
features that were not deleted are read as before.

    python -m experiments.main --config=configs/fig35_38_probes.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick: the models of tab01_generation, then 1 minute; paper needs an
accelerator and the real data
(docs/stories.md).
"""

from configs import stories_common


def get_config(preset: str = "quick"):
  """The config of fig35."""
  config = stories_common.stories_config("fig35_38_probes", preset, measures=("feature_probes",), report="story_probes")
  return config.lock()
