"""Figures 9 and 26: reverse fine-tuning revives O_PT sooner than Scr. + FT learns it.

Claim: after fine-tuning, reFT on the pretraining operand brings Acc. O_PT back in far fewer iterations than a model
that was pretrained without it needs by the same recipe. The paper saw, at C_Te = 0: 0.1K to 1K iterations where the
capability is strongly relevant, about 3K where weakly, 4.5K for the control and at eta_M only.

    python -m experiments.main --config=configs/fig09_reft.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick: the models of fig05_behaviour, then 1 minute; paper needs an
accelerator.
"""

from configs import pcfg_common


def get_config(preset: str = "quick"):
  """The config of Figure 9."""
  config = pcfg_common.pcfg_config("fig09_reft", preset, measures=("behaviour", "data"), report="revival")
  config.reft.measure = True
  return config.lock()
