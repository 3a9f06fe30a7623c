"""How the PCFG half's models are called and ordered in all its reports."""

from experiments.reports import TASKS, rate_name
from finetune_wrappers.reporting.rows import Row, select

# From weak to strong relevance.
PRIORS = ("low", "low_medium", "medium", "medium_high", "high")
# The paper's names of the family tokens in App. E.2.
FAMILIES = {"counting": "T_NJ", "counting_j1": "T_J1", "counting_j2": "T_J2"}


def by_prior(rows: list[Row]) -> list[str]:
  """Priors that the rows have, from weak to strong relevance; those of a config's own come last. Not the control's."""
  names = dict.fromkeys(row["prior"] for row in rows if row.get("prior") and row.get("model") != "never")
  own = [name for name in names if name not in PRIORS]
  return [prior for prior in (*PRIORS, *own) if select(rows, prior=prior) and prior in names]


def order_of(prior: str) -> tuple[int, str]:
  """For sorting as `by_prior` does."""
  return (PRIORS.index(prior) if prior in PRIORS else len(PRIORS), prior)


def setting_name(task: str, n_iters: int) -> str:
  """`Counting, n_iters 800`."""
  return f"{TASKS[task]}, n_iters {n_iters}"


def mix_name(mix: float | None) -> str:
  """`, 10 % mixed in`; empty where no pretraining samples are."""
  return f", {100 * mix:.3g} % mixed in" if mix else ""


def model_name(task: str, n_iters: int, rate: float, prior: str, mix: float | None = None) -> str:
  """`Counting, n_iters 800, η_L 0.0001, low prior, 10 % mixed in`."""
  return f"{setting_name(task, n_iters)}, {rate_name(rate, 'pcfg')}, {prior} prior{mix_name(mix)}"
