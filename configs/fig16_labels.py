"""Figure 16: the labels of fine-tuning are as broad, and alike, whatever C_Tr is and for both operands.

Claim: planting the spurious correlation leaves the label distributions broad and nearly the same at every C_Tr and for
O_PT and O_FT; so no C_Tr is easier to guess. The paper shows histograms over 0..40.

    python -m experiments.main --config=configs/fig16_labels.py:quick --workdir=runs

Cost on 2 CPU cores: smoke, quick and paper under a minute each; nothing is trained.
"""

from configs import pcfg_common


def get_config(preset: str = "quick"):
  """The config of Figure 16."""
  config = pcfg_common.pcfg_config("fig16_labels", preset, measures=("data",), report="pcfg_labels")
  config.tasks = ("counting", "index")
  config.finetune.c_trs = pcfg_common.C_TRS
  config.seeds = (0,)
  return config.lock()
