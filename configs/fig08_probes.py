"""Figures 8 and 90-98: linear probes still read the old answer after fine-tuning.

Claim: probes on the residual stream read r(x, O_PT) as well after fine-tuning with C_Tr = 1 as before, and worse where
the capability is gone. What the paper lacks stands beside it: a model that never had the capability, and labels that
mean nothing. A probe that reads the answer from the former nearly as well is reported as saturated.

    python -m experiments.main --config=configs/fig08_probes.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick: the models of fig05_behaviour, then 1 minute; paper needs an
accelerator.
"""

from configs import pcfg_common


def get_config(preset: str = "quick"):
  """The config of Figure 8."""
  config = pcfg_common.pcfg_config("fig08_probes", preset, measures=("probes",), report="probes")
  return config.lock()
