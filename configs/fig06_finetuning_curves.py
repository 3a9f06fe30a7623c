"""Figure 6: Acc. O_PT while the model is fine-tuned on O_FT, by prior and C_Tr.

Claim: fine-tuning takes Acc. O_PT away; the paper saw it fall at every C_Tr, with eta_L within 1K to 10K iterations.

    python -m experiments.main --config=configs/fig06_finetuning_curves.py:quick --workdir=runs

Cost on 2 CPU cores: smoke, quick and paper: the models of fig05_behaviour, then seconds.
"""

from configs import pcfg_common


def get_config(preset: str = "quick"):
  """The config of Figure 6."""
  config = pcfg_common.pcfg_config(
    "fig06_finetuning_curves", preset, measures=("behaviour", "data"), report="pcfg_curves"
  )
  config.finetune.curves = True
  return config.lock()
