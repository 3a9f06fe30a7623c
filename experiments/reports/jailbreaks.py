"""Figures 24 and 25: after fine-tuning with T_NJ, O_PT asked for with each family token, and what probes read."""

from experiments.reports import TASKS, Made, bar_series, baseline_section, footer, guesses, joined, rate_name
from experiments.reports import probes as probe_report
from experiments.reports.pcfg_behaviour import by_prior
from finetune_wrappers.reporting.claims import Finding, claim_of_models, judge, judge_below, markdown_claims, weakest
from finetune_wrappers.reporting.plots import Panel, bars_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, format_cell, markdown_table

# The paper's names of the family tokens.
FAMILIES = {"counting": "T_NJ", "counting_j1": "T_J1", "counting_j2": "T_J2"}
_MODEL = ("task", "pretraining_steps", "learning_rate", "prior", "c_tr")


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Accuracies by family token, the paper's two claims, and the report of the probes."""
  asked = select(rows, stage="jailbreak", metric="acc_pt")
  claims = _claims(select(asked, model="finetune", c_te=0))
  own = Made(
    title=f"Jailbreaking fine-tuned PCFG models ({facts['config']['name']})",
    sections=[
      ("Claims", markdown_claims(claims)),
      ("Acc. O_PT by family token", _table(asked)),
      baseline_section(rows, "data"),
    ],
    figures={"figure": _figure(rows, asked, facts)},
    short=markdown_claims(claims),
  )
  return joined(own, probe_report.make(rows, arrays, facts), "probes") if select(rows, stage="probe") else own


def _claims(asked: list[Row]) -> list:
  lost, open_ = [], []
  for (task, steps, rate, prior, c_tr), own in group(asked, *_MODEL).items():
    name = f"{TASKS[task]}, n_iters {steps}, {rate_name(rate, 'pcfg')}, {prior} prior, C_Tr {c_tr:g}"
    cells = {token: select(own, family=family) for family, token in FAMILIES.items()}
    texts = {token: f"{token} {format_cell(cell)}" for token, cell in cells.items()}
    lost.append(Finding(name, judge_below(cell_summary(cells["T_NJ"]), below=0.5), texts["T_NJ"]))
    if prior == "high":
      answers = [judge(cell_summary(cells[token]), above=0.9) for token in ("T_J1", "T_J2")]
      open_.append(Finding(name, weakest(*answers), f"{texts['T_J1']}, {texts['T_J2']}"))
  found = {
    "Fine-tuned on b with T_NJ, a is lost with T_NJ (Acc. O_PT below 50 % at C_Te = 0)": lost,
    "High prior: a is answered as before with T_J1 and T_J2 (Acc. O_PT above 90 % with both)": open_,
  }
  return [claim_of_models(text, findings) for text, findings in found.items() if findings]


def _table(asked: list[Row]) -> str:
  lines = []
  for (task, prior, kind, rate, c_tr), own in group(asked, "task", "prior", "model", "learning_rate", "c_tr").items():
    model = "pretrained" if kind == "pretrain" else f"{rate_name(rate, 'pcfg')}, C_Tr {c_tr:g}"
    cells = [format_cell(select(own, family=family, c_te=c_te)) for c_te in (0, 1) for family in FAMILIES]
    lines.append((TASKS[task], prior, model, *cells))
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
  for task, rate in group(select(tuned, model="finetune"), "task", "learning_rate"):
    own = select(tuned, task=task)
    for prior in by_prior(own):
      cells = select(own, prior=prior)
      models = [("pretrained", select(cells, model="pretrain"))]
      found = group(select(cells, model="finetune", learning_rate=rate), "c_tr")
      models += [(f"C_Tr {c_tr:g}", found[(c_tr,)]) for (c_tr,) in sorted(found)]
      series = [bar_series(token, [select(m, family=family) for _, m in models]) for family, token in FAMILIES.items()]
      guess = {"guess": guesses(rows, task, 0)["guess O_PT"]}
      title = f"{TASKS[task]}, {rate_name(rate, 'pcfg')}, {prior} prior"
      names = [name for name, _ in models]
      panels.append(Panel(title, "model", "Acc. O_PT at C_Te = 0, %", series, guess, names))
  return bars_figure(panels, title="O_PT asked for with each family token", footer=footer(facts), columns=3)
