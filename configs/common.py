"""What the configs of every half share, with the reason beside every number the paper does not give.

Presets: `smoke` runs every part once, too small to show anything; `quick` shows the phenomenon on two CPU cores in
minutes; `paper` has the paper's numbers.
"""

from ml_collections import ConfigDict

from finetune_wrappers.types import InputError

# Whether a preset is made to show something: no report judges a claim on one that is not.
PRESETS = {"smoke": False, "quick": True, "paper": True}


def shared_config(name: str, preset: str, *, setting: str, measures: tuple[str, ...], report: str) -> ConfigDict:
  """The keys that every half has; the half adds its own.

  Args:
    name: of the experiment and of its folder in the workdir.
    preset: one of PRESETS.
    setting: the half: a module of `experiments.settings`.
    measures: modules of `experiments.measures` that run on the trained models.
    report: module of `experiments.reports` that draws figures and tables from their rows.

  Raises:
    InputError: for another preset.
  """
  if preset not in PRESETS:
    raise InputError(f"preset: {preset!r} is not one of {', '.join(PRESETS)}")
  return ConfigDict(
    {
      "name": name,
      "setting": setting,
      "measures": measures,
      "report": report,
      "preset": preset,
      "seeds": {"smoke": (0, 1), "quick": (0, 1, 2), "paper": (0, 1, 2, 3, 4)}[preset],
      # Programs over lanes: 0 chooses lanes and layout by a short calibration.
      "lanes_per_program": 0,
      "layout": {"devices": 1 if preset == "smoke" else 0, "inner": "map"},
      "checkpoint_seconds": 60.0,
      # Whether compiled programs are kept in the workdir: auto (on accelerators), on, off (experiments/compiled.py).
      "compilation_cache": "auto",
    }
  )


def answers_config(name: str, preset: str, *, setting: str, measures: tuple[str, ...], report: str) -> ConfigDict:
  """`shared_config` with the keys of tasks whose strings have one answer for each operand; arguments as there."""
  config = shared_config(name, preset, setting=setting, measures=measures, report=report)
  smoke = preset == "smoke"
  config.update(
    {
      # `curves` keeps every evaluation of the fine-tuning in the rows, not only the first, 1K steps and the last.
      "finetune": {"c_trs": (0.0, 1.0), "targets": ("ft",), "curves": False},
      # "Same recipe with a smaller learning rate" than the fine-tuning's. reFT strings carry no correlation: with it,
      # answering for O_FT minus q would pass for the old capability. Revived means Acc. O_PT of `threshold` at
      # C_Te = 0; the paper names no threshold.
      "reft": {"measure": False, "c_tr": 0.0, "threshold": 0.8},
      "pruning": {
        "scores": ("gradient", "gradient_abs", "magnitude"),  # the first is the paper's +w * dL/dw; random always runs
        # `all` removes what the compiler built along with the wrapper (configs/fig57_prune_weights.py shows both).
        "scopes": ("near_zero",),
        "units": ("weight",),
        "ks": (0, 1, 2) if smoke else tuple(range(21)),
        "iterative_every": 1,  # units zeroed between two gradients of the score `gradient_iterative`
        "single_weights": 0,
        "histogram_ks": (),
        "batch_size": 64 if smoke else 1000,
        "eval_size": 32 if smoke else 500,
        "random_draws": 2 if smoke else 10,
      },
      "probes": _probes(preset),
    }
  )
  return config


def training_section(preset: str, *, steps: int, evals: tuple[int, ...], **own: object) -> ConfigDict:
  """How models are fine-tuned.

  Args:
    preset: one of PRESETS.
    steps: iterations.
    evals: steps of the evaluations before the last; those after it are left out.
    **own: further keys of the half.
  """
  return ConfigDict(
    {
      "steps": steps,
      "batch_size": 8 if preset == "smoke" else 96,
      "warmup_steps": steps // 5,  # 2K of 10K
      "final_fraction": 0.01,
      "eval_steps": tuple(e for e in evals if e < steps) + (steps,),
      **own,
    }
  )


def _probes(preset: str) -> ConfigDict:
  """The paper: 4K iterations at 1e-3, divided by 10 at 2K, 3K and 3.5K. quick: a tenth of them at 10 times the rate."""
  steps = {"smoke": 8, "quick": 400, "paper": 4000}[preset]
  return ConfigDict(
    {
      # Operand that the prompt asks the probed model for; a prompt for O_PT calls the capability.
      "prompt": "pt",
      "steps": steps,
      "batch_size": 8 if preset == "smoke" else 64,
      "learning_rate": 1e-3 if preset == "paper" else 1e-2,
      "drops": (steps // 2, 3 * steps // 4, 7 * steps // 8),
      "drop_factor": 0.1,
      "weight_decay": 0.01,
      "eval_size": 16 if preset == "smoke" else 1024,
      "standardise": False,
    }
  )
