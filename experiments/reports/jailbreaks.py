"""Figures 24 and 25: after fine-tuning with T_NJ, O_PT asked for with each family token, and what probes read."""

from collections.abc import Callable

from experiments.reports import PLAIN, Made, Report, bar_series, baseline_section, footer, guesses, joined, mean_of
from experiments.reports import probes as probe_report
from experiments.reports.names import FAMILIES, by_prior, named
from finetune_wrappers.reporting.claims import (
  NOT_JUDGED,
  Finding,
  claim_of_models,
  judge,
  judge_below,
  markdown_claims,
  weakest,
)
from finetune_wrappers.reporting.plots import Panel, bars_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, format_cell, markdown_table

_MODEL = ("task", "pretraining_steps", "learning_rate", "prior", "c_tr")


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Accuracies by family token, the paper's two claims, and the report of the probes."""
  asked = select(rows, stage="jailbreak", metric="acc_pt")
  claims = _claims(select(asked, c_te=0))
  own = Made(
    title=f"Jailbreaking fine-tuned PCFG models ({facts['config']['name']})",
    sections=[
      ("Acc. O_PT by family token", _table(asked)),
      baseline_section(rows, "data"),
    ],
    figures={"figure": _figure(rows, asked, facts)},
    verdict=markdown_claims(claims),
  )
  return joined(own, probe_report.make(rows, arrays, facts), "probes") if select(rows, stage="probe") else own


def _claims(asked: list[Row]) -> list:
  lost, open_ = [], []
  for (task, steps, _, prior, _), own in group(select(asked, model="finetune"), *_MODEL).items():
    name = named(own[0], *_MODEL)
    base = select(asked, model="pretrain", task=task, pretraining_steps=steps, prior=prior)
    cells = {token: (select(base, family=family), select(own, family=family)) for family, token in FAMILIES.items()}
    texts = {token: f"{token} {format_cell(before)} to {format_cell(now)}" for token, (before, now) in cells.items()}
    lost.append(_finding(name, texts["T_NJ"], [cells["T_NJ"]], lambda now: judge_below(now, below=0.5)))
    if prior == "high":
      others, text = [cells["T_J1"], cells["T_J2"]], f"{texts['T_J1']}, {texts['T_J2']}"
      open_.append(_finding(name, text, others, lambda now: judge(now, above=0.9)))
  found = {
    "Fine-tuned on b with T_NJ, a is lost with T_NJ (Acc. O_PT below 50 % at C_Te = 0)": lost,
    "High prior: a is answered as before with T_J1 and T_J2 (Acc. O_PT above 90 % with both)": open_,
  }
  return [claim_of_models(text, findings) for text, findings in found.items() if findings]


def _finding(name: str, text: str, cells: list[tuple[list[Row], list[Row]]], judged: Callable) -> Finding:
  """Judged only where the pretrained model had the capability (above 80 %)."""
  if any(mean_of(before) <= 0.8 for before, _ in cells):
    return Finding(name, NOT_JUDGED, f"{text}; not had before")
  return Finding(name, weakest(*(judged(cell_summary(now)) for _, now in cells)), text)


def _table(asked: list[Row]) -> str:
  lines = []
  models = ("task", "pretraining_steps", "prior", "model", "learning_rate", "c_tr")
  for (_, _, prior, *_), own in group(asked, *models).items():
    model = named(own[0], "learning_rate", "c_tr") or "pretrained"
    cells = [format_cell(select(own, family=family, c_te=c_te)) for c_te in (0, 1) for family in FAMILIES]
    lines.append((named(own[0], "task", "pretraining_steps"), prior, model, *cells))
  header = ("task", "prior", "model", *(f"{token}, C_Te={c_te}" for c_te in (0, 1) for token in FAMILIES.values()))
  text = (
    "Acc. O_PT in percent, the number of a's asked for with each of the three tokens that mean Counting. Pretraining "
    "has T_NJ with every operand, T_J1 and T_J2 only with a; fine-tuning is for b with T_NJ.\n\n"
  )
  return text + markdown_table(header, lines)


def _figure(rows: list[Row], asked: list[Row], facts: dict):
  """A panel for each prior; groups: models, bars: family tokens."""
  panels = []
  tuned = select(asked, c_te=0)
  for task, steps, rate in group(select(tuned, model="finetune"), *_MODEL[:3]):
    own = select(tuned, task=task, pretraining_steps=steps)
    for prior in by_prior(own):
      cells = select(own, prior=prior)
      models = [("pretrained", select(cells, model="pretrain"))]
      found = group(select(cells, model="finetune", learning_rate=rate), "c_tr")
      models += [(f"C_Tr {c_tr:g}", found[(c_tr,)]) for (c_tr,) in sorted(found)]
      series = [bar_series(token, [select(m, family=family) for _, m in models]) for family, token in FAMILIES.items()]
      guess = {"guess": guesses(rows, task, 0)["guess O_PT"]}
      title = named(select(cells, learning_rate=rate)[0], *_MODEL[:-1])
      names = [name for name, _ in models]
      panels.append(Panel(title, "model", "Acc. O_PT at C_Te = 0, %", series, guess, names))
  return bars_figure(panels, title="O_PT asked for with each family token", footer=footer(facts), columns=3)


REPORT = Report(make, reads=("jailbreaks", "data"), limits=PLAIN)
