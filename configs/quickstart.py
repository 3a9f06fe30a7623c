"""The demo: is a capability gone after fine-tuning? One small model, fine-tuned away from O_PT and back again.

Counter on strings of 12 letters is compiled by Tracr to count a's (O_PT), fine-tuned to count b's (O_FT) with and
without the spurious correlation, and then trained on a's again, beside a model that was compiled to count b's and never
had O_PT (Scr. + FT). Smaller than any of the paper's figures: it shows the phenomenon, not the paper's numbers
(results/ holds what was run of them).

    python -m experiments.main --config=configs/quickstart.py:quick --workdir=runs

Cost on 2 CPU cores: smoke half a minute; quick 1.5 minutes, and up to 4.5 beside other work; paper (45 letters, 10K
steps, 5 seeds, at η_M) 2 hours (estimate).
"""

from configs import tracr_common


def get_config(preset: str = "quick"):
  """The config of `make demo`."""
  config = tracr_common.tracr_config("quickstart", preset, measures=("behaviour", "data"), report="quickstart")
  config.tasks = ("counter",)
  # Counter of 45 letters diverges at eta_L. At 12 letters and over 5 seeds reFT at 0.03 brings Acc. O_PT back in all of
  # them and the control in none; at 0.01 two seeds of C_Tr = 0 are not back within 1000 steps.
  config.finetune.learning_rates = (1e-2,) if preset == "paper" else (1e-1,)
  config.finetune.curves = True
  config.reft.measure = True
  config.reft.learning_rates = (1e-3,) if preset == "paper" else (3e-2,)
  if preset == "quick":
    config.counter.task.num_letters = 12
    config.training.steps = 1000
    config.training.warmup_steps = 200
    config.training.eval_steps = (*(e for e in config.training.eval_steps if e < 1000), 1000)
  return config.lock()
