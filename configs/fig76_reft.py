"""Figures 76-78: reverse fine-tuning after fine-tuning at the large learning rate, eta_L.

Claim: even after eta_L, O_PT comes back sooner than Scr. + FT learns it.

    python -m experiments.main --config=configs/fig76_reft.py:quick --workdir=runs

Cost on 2 CPU cores (estimates): smoke 1 minute; quick: the models of fig09_reft, then 4 minutes; paper needs an
accelerator.
"""

from configs import pcfg_common


def get_config(preset: str = "quick"):
  """The config of Figures 76-78."""
  config = pcfg_common.pcfg_config("fig76_reft", preset, measures=("behaviour", "data"), report="revival")
  # quick fine-tunes at 3e-4 elsewhere. The paper's eta_L is ten times eta_M; here three times.
  config.finetune.learning_rates = {"smoke": (3e-3,), "quick": (1e-3,), "paper": pcfg_common.LEARNING_RATES[:1]}[preset]
  config.reft.measure = True
  return config.lock()
