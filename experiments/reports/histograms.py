"""Figure 59: predicted labels before and after pruning, beside the right answers."""

from experiments.reports import footer, present
from experiments.reports.names import named, task_name
from experiments.reports.single_weights import Part
from finetune_wrappers.reporting.claims import NOT_JUDGED, Claim, Finding, claim_of_models
from finetune_wrappers.reporting.plots import Panel, Series, bars_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import format_cell, markdown_table

_COLLAPSED = 0.5  # one class on more than half of the strings


def histograms(rows: list[Row], facts: dict) -> Part | None:
  """The part on predicted labels; None where they were not measured, or every run diverged."""
  shares = select(rows, metric="predicted_share", c_te=0)
  if not shares:
    return None
  # Models that diverged have rows here and none among the shares.
  where = {"c_te": 0, **{field: facts["config"]["pruning"][f"{field}s"][0] for field in ("scope", "unit")}}
  before = select(rows, stage="prune", metric="acc_pt", score="random", k=0, **where)
  return Part(
    figure=_figure(rows, shares, facts),
    section=("Largest share of one predicted class, C_Te = 0", _table(shares)),
    claims=[_claim(task, select(shares, task=task), select(before, task=task)) for task in present(before, "task")],
  )


def largest_shares(shares: list[Row]) -> list[Row]:
  """One row a model and K: the share of its most predicted class."""
  keys = ("task", "learning_rate", "c_tr", "seed", "k")
  return [max(own, key=lambda row: row["value"]) for own in group(shares, *keys).values()]


def _table(shares: list[Row]) -> str:
  lines = []
  largest = largest_shares(shares)
  ks = present(largest, "k")
  for (task, _, c_tr), own in group(largest, "task", "learning_rate", "c_tr").items():
    cells = [format_cell(select(own, k=k)) for k in ks]
    lines.append((task_name(task), named(own[0], "learning_rate"), f"{c_tr:g}", *cells))
  header = ("task", "rate", "C_Tr", *(f"K = {k}, %" for k in ks))
  return "Mean over seeds that did not diverge, gradient score.\n\n" + markdown_table(header, lines)


def _claim(task: str, shares: list[Row], before: list[Row]) -> Claim:
  largest = select(largest_shares(shares), c_tr=1.0)
  findings = []
  for (rate,), cell in group(select(before, c_tr=1.0), "learning_rate").items():
    own, name = select(largest, learning_rate=rate), named(cell[0], "learning_rate")
    if not own:
      findings.append(Finding(name, NOT_JUDGED, format_cell(cell)))
    for k in present(own, "k"):
      if k:
        worst = max(row["value"] for row in select(own, k=k))
        answer = "yes" if worst <= _COLLAPSED else "no"
        findings.append(Finding(f"{name}, K = {k}", answer, f"{100 * worst:.0f} %"))
  text = (
    f"{task_name(task)}, C_Tr = 1: pruning does not collapse the predictions (no class on more than half, in any seed)"
  )
  claim = claim_of_models(text, findings)
  return Claim(claim.text, claim.answer, f"largest share of one class in any seed: {claim.evidence}")


def _figure(rows: list[Row], shares: list[Row], facts: dict):
  """Right answers, before and after the largest K; first seed, so that a share is one model's."""
  panels = []
  first = min(present(shares, "seed"))
  for (task, *_), own in group(select(shares, seed=first), "task", "learning_rate", "c_tr").items():
    labels = select(rows, stage="prune", metric="label_share", task=task, c_te=0, operand="pt")
    names = sorted({row["label"] for row in labels + own}, key=lambda name: (len(name), name))
    ks = present(own, "k")
    sets = {"right answer O_PT": labels, "before": select(own, k=0)}
    sets |= {f"K = {k}": select(own, k=k) for k in ks if k}
    series = []
    for label, found in sets.items():
      share = {row["label"]: row["value"] for row in found}
      series.append(Series(label, [share.get(name, 0.0) for name in names]))
    title = named(own[0], "task", "learning_rate", "c_tr")
    panels.append(Panel(title, "class", "share, %", series, categories=names))
  line = footer(facts, intervals=False)
  return bars_figure(panels, title=f"Predicted labels at C_Te = 0, seed {first}", footer=line, columns=2)
