"""The PCFG half's own keys beside those of `configs.common`, with a reason for each number the paper does not give."""

from ml_collections import ConfigDict

from configs.common import answers_config, training_section

# eta_L, eta_M, eta_S (paper App. C)
LEARNING_RATES = (1e-4, 1e-5, 1e-6)
C_TRS = (0.0, 0.5, 0.8, 1.0)

# P_T(a, b, c). The last is the control's, which never sees O_PT = a asked for.
PRIORS = {
  "low": (0.999, 0.001, 0.0),
  "low_medium": (0.99, 0.01, 0.0),
  "medium": (0.9, 0.1, 0.0),
  "medium_high": (0.7, 0.2, 0.1),
  "high": (0.5, 0.3, 0.2),
  "without_a": (0.0, 1.0, 0.0),
}


def pcfg_config(name: str, preset: str, *, measures: tuple[str, ...], report: str) -> ConfigDict:
  """A config with every key of the PCFG half; the caller changes what its figure needs and locks it.

  Arguments and errors are those of `configs.common.answers_config`.
  """
  config = answers_config(name, preset, setting="pcfg", measures=measures, report=report)
  config.tasks = ("counting",)
  config.text = _text(preset)
  # Spurious correlation r(x, O_FT) - r(x, O_PT) = q (paper: 1 for Counting; "a constant" for Index).
  config.counting = ConfigDict({"q": 1, "distinct_answers_in_test": True})
  config.index = ConfigDict({"q": 1, "distinct_answers_in_test": True})
  config.model = _model(preset)
  config.priors = ConfigDict(PRIORS)
  config.pretrain = _pretrain(preset)
  config.training = _training(preset)
  # The paper fine-tunes at a tenth (eta_L) to a thousandth (eta_S) of pretraining's rate; quick at about a seventh, the
  # least of three tried (1e-3, 3e-4, 1e-4) at which 200 steps learn O_FT. Rows of the other two are not in results/.
  config.finetune.learning_rates = {"smoke": (1e-3,), "quick": (3e-4,), "paper": (1e-4, 1e-5)}[preset]
  if preset == "paper":
    config.finetune.c_trs = C_TRS
  config.finetune.priors = ("low", "high") if preset == "smoke" else ("low", "medium", "high")
  # Of mixed-in pretraining samples, too, only the answer trains, as in the rest of the batch.
  config.finetune.mixes = (0.0,)
  config.reft.learning_rates = {"smoke": (3e-4,), "quick": (1e-4,), "paper": (1e-5, 1e-6)}[preset]
  config.reft.scratch = False
  # Pruning's loss is on the answers of the task that is fine-tuned, asked for O_PT.
  config.pruning.scopes = ("blocks",)  # embeddings and head left out: a row of theirs is a token, not a neuron
  config.pruning.units = ("neuron",)
  config.pruning.scores = ("gradient", "magnitude")
  if preset == "quick":  # 20 seconds a model instead of 90
    config.pruning.update({"ks": (0, 1, 2, 4, 8, 12, 16, 20), "random_draws": 5, "eval_size": 250})
  return config


def _text(preset: str) -> ConfigDict:
  if preset == "paper":
    lengths = {"window": 250, "counted": 40, "occurrence": 6, "token_place": 40, "farthest": 40}
  else:
    lengths = {"window": 24, "counted": 12, "occurrence": 3, "token_place": 12, "farthest": 24}
  # `spread`: natural text has 13.3 +- 1.1 a's among 40, so a model that guesses the mode scores 35 % and needs no
  # capability; half the pretraining texts are rewritten so that labels are as broad as in fine-tuning (Fig. 16).
  # quick rewrites more, so that 800 steps learn something under the high prior too: Acc. O_PT 80 [62, 97] %, O_FT
  # 50 [11, 88] % over 5 seeds (results/pcfg_quick/fig05_behaviour). Shares of 0.5 and 0.9 were tried on one seed only,
  # too few beside that spread.
  spread = 0.8 if preset == "quick" else 0.5
  # Labels of Counting cover 0 to 19 (O_PT) and 1 to 20 (O_FT), not 0 to 40: both operands are counted in the same 40
  # tokens, and every pair of answers has to fit. An Index needs room for five nearer occurrences of both: 11 to 40.
  # `rules`: none is the paper's grammar; else lines `parent -> child child [probability]`, the start's first.
  return ConfigDict({**lengths, "short": "join", "spread": spread, "jailbreaks": False, "rules": ()})


def _model(preset: str) -> ConfigDict:
  blocks, heads, width = {"smoke": (2, 2, 16), "quick": (2, 4, 64), "paper": (6, 6, 192)}[preset]
  return ConfigDict({"blocks": blocks, "heads": heads, "width": width, "compute_dtype": "float32"})


# The paper names AdamW and its learning rates; the rest are minGPT's defaults.
_ADAMW = {"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "clip_norm": 1.0, "microbatches": 1}


def _pretrain(preset: str) -> ConfigDict:
  steps = {"smoke": 6, "quick": 800, "paper": 200_000}[preset]
  return ConfigDict(
    {
      # Each n_iters is a run with a schedule of its own.
      "steps": (steps,),
      "learning_rate": 1e-3 if preset == "paper" else 2e-3,  # a width of 64 tolerates more
      "control_prior": "without_a",
      "batch_size": {"smoke": 8, "quick": 64, "paper": 96}[preset],  # the paper gives fine-tuning's
      "warmup_fraction": 0.2,
      "final_fraction": 0.01,  # the paper says cosine, not where it ends; fine-tuning's ends here
      # "Next-token cross-entropy". In 31 tokens instead of 258 of which one is the answer, 600 steps did not find it:
      # quick adds the answer's own loss once.
      "answer_weight": 0.0 if preset == "paper" else 1.0,
      "eval_fractions": (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
      "eval_size": 32 if preset == "smoke" else 500,
      **_ADAMW,
    }
  )


def _training(preset: str) -> ConfigDict:
  steps = {"smoke": 6, "quick": 200, "paper": 10_000}[preset]
  evals = (0, 10, 20, 50, *range(100, 1000, 100), *range(1000, 10_001, 500))
  if preset == "quick":
    evals = (0, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200)
  return training_section(
    preset,
    steps=steps,
    evals=evals,
    batch_size={"smoke": 8, "quick": 64, "paper": 96}[preset],
    eval_size={"smoke": 32, "quick": 300, "paper": 500}[preset],
    **_ADAMW,
  )
