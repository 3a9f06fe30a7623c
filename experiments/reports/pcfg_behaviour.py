"""Figure 5 and Table 5: accuracies of fine-tuned PCFG models by prior, C_Tr and C_Te."""

from experiments.reports import (
  TASKS,
  Made,
  bar_series,
  baseline_section,
  footer,
  guesses,
  last_step,
  present,
  rate_name,
)
from finetune_wrappers.reporting.claims import (
  Claim,
  Finding,
  claim_of_models,
  judge,
  judge_below,
  markdown_claims,
  weakest,
)
from finetune_wrappers.reporting.plots import Panel, bars_figure
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, format_cell, markdown_table, paired_summary

_METRICS = ("acc_pt", "acc_ft")
_MODEL = ("task", "pretraining_steps", "learning_rate", "prior", "c_tr")
_PRIORS = ("low", "low_medium", "medium", "medium_high", "high")


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Accuracies at the end of fine-tuning, three claims and a figure of bars."""
  del arrays
  final = last_step(select(rows, stage="finetune", metric=_METRICS, target="ft"))
  before = last_step(select(rows, stage="pretrain", metric=_METRICS))
  claims = _claims(final)
  return Made(
    title=f"Fine-tuned PCFG models ({facts['config']['name']})",
    sections=[
      ("Claims", markdown_claims(claims)),
      ("Accuracies", _table(before, final)),
      baseline_section(rows, "data"),
    ],
    figures={"figure": _figure(rows, before, final, facts)},
    short=markdown_claims(claims),
  )


def by_prior(rows: list[Row]) -> list[str]:
  """Priors that the rows have, from weak to strong relevance."""
  return [prior for prior in _PRIORS if select(rows, prior=prior)]


def _claims(final: list[Row]) -> list[Claim]:
  """What the paper says of C_Tr = 0 and 1, judged for every task, rate and n_iters."""
  learned, wrapped, kept = [], [], []
  for (task, steps, rate, prior), own in group(final, *_MODEL[:-1]).items():
    name = f"{TASKS[task]}, n_iters {steps}, {rate_name(rate, 'pcfg')}, {prior} prior"
    cells = {(c_tr, c_te): select(own, c_tr=c_tr, c_te=c_te, metric="acc_ft") for c_tr in (0.0, 1.0) for c_te in (0, 1)}
    if cells[0.0, 0]:
      learned.append(Finding(name, judge(cell_summary(cells[0.0, 0]), above=0.9), format_cell(cells[0.0, 0])))
    if not cells[1.0, 0]:
      continue
    where, elsewhere = cell_summary(cells[1.0, 1]), cell_summary(cells[1.0, 0])
    text = f"{format_cell(cells[1.0, 1])} against {format_cell(cells[1.0, 0])}"
    if prior == "low":
      wrapped.append(Finding(name, weakest(judge(where, above=0.9), judge_below(elsewhere, below=0.1)), text))
    if prior == "high":
      setting = {"task": task, "pretraining_steps": steps, "learning_rate": rate, "c_tr": 1.0, "c_te": 0}
      low = select(final, **setting, prior="low", metric="acc_ft")
      if low:
        answer = judge(paired_summary(cells[1.0, 0], low), above=0.1)
        kept.append(Finding(name, answer, f"{format_cell(cells[1.0, 0])}, low prior {format_cell(low)}"))
  texts = (
    "C_Tr = 0: O_FT is learned on the whole distribution (Acc. O_FT above 90 % at C_Te = 0)",
    "C_Tr = 1, low prior: O_FT is answered where the correlation holds (above 90 % at C_Te = 1) and not elsewhere "
    "(below 10 % at C_Te = 0)",
    "C_Tr = 1: a high prior keeps more of Acc. O_FT at C_Te = 0 than a low one (10 points or more)",
  )
  found = zip(texts, (learned, wrapped, kept), strict=True)
  return [claim_of_models(text, findings) for text, findings in found if findings]


def _table(before: list[Row], final: list[Row]) -> str:
  lines = []
  for (task, steps, prior), own in group(before, "task", "pretraining_steps", "prior").items():
    lines.append((TASKS[task], steps, "pretrained", prior, "", *_four(own)))
  for (task, steps, rate, prior, c_tr), own in sorted(group(final, *_MODEL).items(), key=_order):
    lines.append((TASKS[task], steps, rate_name(rate, "pcfg"), prior, f"{c_tr:g}", *_four(own)))
  header = ("task", "n_iters", "rate", "prior", "C_Tr", *(f"O_{o}, C_Te={c}" for c in (0, 1) for o in ("PT", "FT")))
  text = (
    "Accuracies in percent; O_PT is asked for with its own prompt, O_FT with its own. In the test set at C_Te = 0 the "
    "two operands' answers differ on every text.\n\n"
  )
  return text + markdown_table(header, lines)


def _order(item) -> tuple:
  task, steps, rate, prior, c_tr = item[0]
  return task, steps, -rate, _PRIORS.index(prior), c_tr


def _four(rows: list[Row]) -> list[str]:
  return [format_cell(select(rows, metric=metric, c_te=c_te)) for c_te in (0, 1) for metric in _METRICS]


def _figure(rows: list[Row], before: list[Row], final: list[Row], facts: dict):
  """Groups of bars: priors. Bars: pretrained, and fine-tuned at each C_Tr."""
  panels = []
  priors = by_prior(final)
  for (task, steps, rate), own in group(final, *_MODEL[:3]).items():
    base = select(before, task=task, pretraining_steps=steps)
    for metric in _METRICS:
      for c_te in (0, 1):
        chosen = {"metric": metric, "c_te": c_te}
        series = [bar_series("pretrained", [select(base, prior=prior, **chosen) for prior in priors])]
        for c_tr in present(own, "c_tr"):
          cells = [select(own, prior=prior, c_tr=c_tr, **chosen) for prior in priors]
          series.append(bar_series(f"fine-tuned, C_Tr {c_tr:g}", cells))
        operand = f"O_{metric[-2:].upper()}"
        guess = {"guess": guesses(rows, task, c_te)[f"guess {operand}"]}
        title = f"{TASKS[task]}, {rate_name(rate, 'pcfg')}, C_Te = {c_te}"
        panels.append(Panel(title, "prior of O_FT in pretraining", f"Acc. {operand}, %", series, guess, priors))
  return bars_figure(panels, title="Behaviour after fine-tuning", footer=footer(facts))
