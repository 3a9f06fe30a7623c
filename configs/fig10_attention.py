"""Figures 10, 39-45, 48-52: where the model attends, compiled, fine-tuned and reverse fine-tuned.

Claim: after fine-tuning with C_Tr = 1 Counter's block 1 still attends to the a's (O_PT); with C_Tr = 0 also to the
b's (O_FT). Max-identifier's block 0 sorts and its block 2 reads the answer. Maps of chosen strings
(`--config.maps.inputs.counter="('abc...',)"`, or drawn from the test set), and over the test set the share of
the answer position's attention that lands on each operand's letter.

    python -m experiments.main --config=configs/fig10_attention.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick 4 minutes; paper as fig27_reft, with which it shares its models. Fig. 51 is
`--config.max_identifier.task.q=3`.
"""

from configs import common


def get_config(preset: str = "quick"):
  """The config of Figure 10 and its family."""
  config = common.tracr_config("fig10_attention", preset, measures=("maps", "behaviour"), report="maps")
  config.finetune.learning_rates = (1e-2,)
  config.reft.measure = True
  return config.lock()
