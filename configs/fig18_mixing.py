"""Figures 18-23: fine-tuning with pretraining samples mixed in (App. E.1).

Question: does O_PT stay if 50 %, 10 % or 0.1 % of the fine-tuning samples come from pretraining, and do probes still
read it? 0 % stands beside them.

    python -m experiments.main --config=configs/fig18_mixing.py:quick --workdir=runs

Cost on 2 CPU cores (estimates): smoke 1 minute; quick: the models of fig05_behaviour and fig08_probes, then 10 minutes;
paper needs an accelerator.
"""

from configs import pcfg_common


def get_config(preset: str = "quick"):
  """The config of Figures 18-23."""
  config = pcfg_common.pcfg_config("fig18_mixing", preset, measures=("behaviour", "probes", "data"), report="mixing")
  config.finetune.mixes = (0.0, 0.5) if preset == "smoke" else (0.0, 0.001, 0.1, 0.5)
  return config.lock()
