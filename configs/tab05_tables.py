"""Tables 5 to 8: Counting and Index after 200K and 50K iterations of pretraining, at every learning rate and C_Tr.

Claim: as Figure 5. Tables 5 and 7 (200K) stand beside ours cell by cell at the paper's scale; of 6 and 8 (50K) we have
no copy.

    python -m experiments.main --config=configs/tab05_tables.py:quick --workdir=runs

Cost on 2 CPU cores (estimates): smoke 2 minutes; quick: the models of fig60_sweep, then seconds; paper needs an
accelerator.
"""

from configs import fig60_sweep


def get_config(preset: str = "quick"):
  """The config of Tables 5 to 8."""
  config = fig60_sweep.get_config(preset)
  with config.unlocked():
    config.name = "tab05_tables"
    if preset == "paper":
      config.pretrain.steps = (50_000, 200_000)
      config.finetune.priors = ("low", "medium", "high")
  return config
