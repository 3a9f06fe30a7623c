"""Figures 10, 39-45, 48-52: where the model attends, compiled, fine-tuned and reverse fine-tuned.

Claims: after fine-tuning with C_Tr = 1 the block that reads the answer (Counter's block 1, Max-identifier's block 2)
still attends to O_PT's letters; with C_Tr = 0 to O_FT's too. Judged by the share of the answer position's attention on
those letters over the test set, beside what uniform attention would put there. That Max-identifier's block 0 sorts is
for the eye: maps of chosen strings (`--config.maps.inputs.counter="('abc...',)"`, or drawn from the test set).

    python -m experiments.main --config=configs/fig10_attention.py:quick --workdir=runs

Cost on 2 CPU cores: smoke 1 minute; quick 4 minutes; paper as fig27_reft, with which it shares its models. Fig. 51 is
`--config.max_identifier.task.q=3`.
"""

from configs import tracr_common


def get_config(preset: str = "quick"):
  """The config of Figure 10 and its family."""
  config = tracr_common.tracr_config("fig10_attention", preset, measures=("maps", "behaviour"), report="maps")
  config.finetune.learning_rates = (1e-2,)
  config.reft.measure = True
  return config.lock()
