"""Figures 24 and 25: jailbreaking; O_PT is lost with the family token of the fine-tuning, not with others (App. E.2).

Claim: three tokens mean Counting; T_NJ came with a, b and c in pretraining, T_J1 and T_J2 only with a. After
fine-tuning for b with T_NJ, a is lost with T_NJ, but for a high prior perfect with T_J1 and T_J2; probes read it for
all.

    python -m experiments.main --config=configs/fig24_jailbreak.py:quick --workdir=runs

Cost on 2 CPU cores (estimates): smoke 1 minute; quick 10 minutes (its pretraining has the two further tokens and is its
own); paper needs an accelerator.
"""

from configs import pcfg_common


def get_config(preset: str = "quick"):
  """The config of Figures 24 and 25."""
  measures = ("behaviour", "jailbreaks", "probes", "data")
  config = pcfg_common.pcfg_config("fig24_jailbreak", preset, measures=measures, report="jailbreaks")
  config.text.jailbreaks = True
  return config.lock()
