"""Rows and facts made by hand for the tests of reports."""

import itertools
import json

from finetune_wrappers.reporting.rows import make_row

NAMES = {"counter": "Counter", "max_identifier": "Max-identifier"}
BLOCK = {"counter": 1, "max_identifier": 2}


def rows_of(stage, metric, values, *, task="counter", step=10, **swept):
  """A row for each seed; None for a diverged run."""
  common = {"experiment": "e", "setting": "tracr", "task": task, "stage": stage, "metric": metric, "step": step}
  return [make_row(**common, seed=s, value=v, diverged=v is None, **swept) for s, v in enumerate(values)]


def guess_rows(task):
  """20 % on training's test sets, 30 % on pruning's."""
  cells = itertools.product((("data", 0.2), ("prune", 0.3)), ("pt", "ft"), (0, 1))
  return [
    row
    for (stage, value), operand, c_te in cells
    for row in rows_of(stage, "guess_baseline", [value], task=task, step=0, operand=operand, c_te=c_te)
  ]


def tuned(values, *, rate=0.1, c_tr=1.0, c_te=0, metric="acc_ft", **more):
  fields = {"learning_rate": rate, "c_tr": c_tr, "c_te": c_te, "target": "ft", **more}
  return rows_of("finetune", metric, values, **fields)


def facts_of(config):
  facts = {
    "config": config.to_dict(),
    "devices": ["a CPU"],
    "layouts": [],
    "commit": "c0ffee",
    "trained_at": ["c0ffee"],
  }
  versions = dict.fromkeys(("processor", "cores", "python", "jax", "jaxlib", "flax"), "1")
  return json.loads(json.dumps({**facts, "versions": versions}))


def answers(claims):
  return [claim.answer for claim in claims]


def table_lines(markdown):
  """Cells of each line of the Markdown tables."""
  return [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]


def line_that_starts(markdown, *cells):
  (line,) = [line for line in table_lines(markdown) if line[: len(cells)] == list(cells)]
  return line


def table3_rows(values, task="counter"):
  """Every cell of C_Tr 0 and 1 at one rate, with values(c_tr, c_te, metric)."""
  cells = itertools.product((0.0, 1.0), (0, 1), ("acc_pt", "acc_ft"))
  return [
    row
    for c_tr, c_te, metric in cells
    for row in tuned(values(c_tr, c_te, metric), c_tr=c_tr, c_te=c_te, metric=metric, task=task)
  ]


GONE = -0.5  # a seed of `passage_rows` that diverged before its first step


def passage_rows(stage, reached, *, last=200, **swept):
  """A curve for each seed: below 0.8 until the step where it is reached; -s diverges after step s; None never."""
  rows = []
  for seed, when in enumerate(reached):
    for step in (0, 10, 20, 100, last):
      bad = when == GONE or (when is not None and when < 0 and step > -when)
      value = None if bad else 0.9 if when is not None and 0 <= when <= step else 0.3
      row = rows_of(stage, "acc_pt", [value], step=step, c_te=0, reft_learning_rate=0.001, **swept)[0]
      rows.append({**row, "seed": seed})
  return rows


def reft_rows(reached, c_tr=1.0, target="ft"):
  return passage_rows("reft", reached, learning_rate=0.1, c_tr=c_tr, target=target)


def pruned(by_k, *, score="gradient", c_tr=1.0, metric="acc_pt", **more):
  """by_k: {K: values of the seeds}."""
  swept = {"unit": "weight", "scope": "near_zero", "learning_rate": 0.1, "target": "ft", "c_te": 0, **more}
  return [r for k, v in by_k.items() for r in rows_of("prune", metric, v, k=k, c_tr=c_tr, score=score, **swept)]


def single_rows(lifts, base=(0.1, 0.2), metric="acc_pt", random=(0.0, 0.0), **more):
  """W1, W2, ... each lifting the seeds by so much; base None for a seed that diverged, which has no such rows."""
  rows = []
  for score, by in zip(("random", "random_best"), random, strict=True):
    by_k = {0: list(base), 1: [None if b is None else b + by for b in base]}
    rows += pruned(by_k, metric=metric, score=score, **more)
  for rank, lift in enumerate(lifts, start=1):
    values = [None if b is None else b + by for b, by in zip(base, lift, strict=True)]
    swept = {"learning_rate": 0.1, "c_tr": 1.0, "c_te": 0, "k": 1, "rank": rank, "weight": f"B1 W_V[one,{rank}]"}
    swept |= {"scope": "near_zero", "unit": "weight"}
    rows += [r for r in rows_of("prune_single", metric, values, **{**swept, **more}) if r["value"] is not None]
  return rows


def share_rows(by_k, **more):
  """by_k: {K: the share of class 1 in each seed}; class 2 has the rest."""
  swept = {"learning_rate": 0.1, "c_tr": 1.0, "c_te": 0, "unit": "weight", "scope": "near_zero", **more}
  return [
    row
    for k, shares in by_k.items()
    for label, part in (("1", shares), ("2", [1 - share for share in shares]))
    for row in rows_of("prune", "predicted_share", part, k=k, label=label, score="gradient", **swept)
  ]


def attention_rows(task, by_model, seeds, uniform=(0.1, 0.1)):
  """by_model: {(stage, C_Tr): shares on O_PT and O_FT of the block that reads the answer, one or a list of seeds}."""
  rows = []
  for operand, share in zip(("pt", "ft"), uniform, strict=True):
    rows += rows_of("data", "attention_uniform", [share], task=task, step=0, attended=operand, c_te=0)
  for (stage, c_tr), shares in by_model.items():
    swept = {} if stage == "compile" else {"learning_rate": 0.1, "c_tr": c_tr, "target": "ft"}
    for operand, share in zip(("pt", "ft"), shares, strict=True):
      values = share if isinstance(share, list) else [share] * (1 if stage == "compile" else seeds)
      rows += rows_of(stage, "attention_mass", values, task=task, block=BLOCK[task], attended=operand, c_te=0, **swept)
    rows += rows_of(stage, "activation_shift", [0.5], task=task, block=BLOCK[task], c_te=0, **swept)
  return rows
