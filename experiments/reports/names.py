"""How reports call and order tasks and models; the display names are the settings' own."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments.registry import registered
from finetune_wrappers.reporting.rows import Row, select

# From weak to strong relevance.
PRIORS = ("low", "low_medium", "medium", "medium_high", "high")
# The paper's names of the family tokens in App. E.2.
FAMILIES = {"counting": "T_NJ", "counting_j1": "T_J1", "counting_j2": "T_J2"}
# How a row's field is said, if not by its name and value; None leaves it out.
_SAID = {
  "task": lambda row: task_name(row["task"]),
  "pretraining_steps": lambda row: f"n_iters {row['pretraining_steps']}",
  "prior": lambda row: f"{row['prior']} prior",
  "target": lambda row: {"random": "randFT"}.get(row["target"]),
  "learning_rate": lambda row: rate_name(row["learning_rate"], row["setting"]),
  "c_tr": lambda row: f"C_Tr {row['c_tr']:g}",
  "mix": lambda row: f"{100 * row['mix']:.3g} % mixed in" if row["mix"] else None,
  "reft_learning_rate": lambda row: f"then reFT {row['reft_learning_rate']:g}",
}


def named(row: Mapping[str, Any], *fields: str) -> str:
  """What a row is about, by some of its fields: `Counting, n_iters 800, η_L 0.0001, low prior, 10 % mixed in`.

  Args:
    row: fields that it lacks, or that are None, are left out.
    *fields: in the order in which they are said.
  """
  said = [_SAID.get(field, _plainly(field))(row) for field in fields if row.get(field) is not None]
  return ", ".join(text for text in said if text)


def _plainly(field: str) -> Callable[[Mapping[str, Any]], str]:
  return lambda row: f"{field} {f'{row[field]:g}' if isinstance(row[field], float) else row[field]}"


def short_name(row: Mapping[str, Any]) -> str:
  """A model on little room: `compiled`, `FT 0.01, C_Tr 1`, `FT 0.01, C_Tr 1, reFT 0.001`."""
  if row.get("learning_rate") is None:
    return "compiled"
  kind = "randFT" if row.get("target") == "random" else "FT"
  reft = row.get("reft_learning_rate")
  return f"{kind} {row['learning_rate']:g}, C_Tr {row['c_tr']:g}" + (f", reFT {reft:g}" if reft else "")


def task_name(task: str) -> str:
  """A task as its setting writes it: `Max-identifier`."""
  settings = registered("experiments.settings", "SETTING").values()
  return next(setting.tasks[task] for setting in settings if task in setting.tasks)


def rate_name(rate: float, setting: str) -> str:
  """The paper's name of a learning rate with its value: `η_M 0.01`."""
  value = float(f"{rate:.6g}")
  return f"{registered('experiments.settings', 'SETTING')[setting].rates.get(value, 'η')} {value:g}"


def by_prior(rows: list[Row]) -> list[str]:
  """Priors that the rows have, from weak to strong relevance; those of a config's own come last. Not the control's."""
  names = dict.fromkeys(row["prior"] for row in rows if row.get("prior") and row.get("model") != "never")
  own = [name for name in names if name not in PRIORS]
  return [prior for prior in (*PRIORS, *own) if select(rows, prior=prior) and prior in names]


def order_of(prior: str) -> tuple[int, str]:
  """For sorting as `by_prior` does."""
  return (PRIORS.index(prior) if prior in PRIORS else len(PRIORS), prior)
