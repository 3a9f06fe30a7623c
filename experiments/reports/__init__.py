"""Reports: functions of rows (and map arrays). Each module registers one as REPORT; its name is the report's."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from configs.common import PRESETS
from experiments.reports.names import task_name
from finetune_wrappers.reporting.plots import Series
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, format_cell, markdown_table
from finetune_wrappers.rules import Rule
from finetune_wrappers.statistics import t_quantile

_SETS = {"data": "", "prune": ", pruning"}
# Limits of reports that do not tell randFT apart, and of those that are about reFT.
PLAIN = {"finetune.targets": Rule("('ft',)", lambda values: values == ("ft",))}
REVERSED = {"reft.measure": Rule("True", bool)}


@dataclasses.dataclass
class Made:
  """What a report made.

  Attributes:
    title: of summary.md.
    sections: (heading, Markdown) in order.
    figures: file name without ending to figure; one is called `figure`.
    verdict: what the numbers say: claims or a conclusion, as Markdown. Left out where the preset shows nothing.
    table: Markdown that the command prints above it.
  """

  title: str
  sections: list[tuple[str, str]]
  figures: dict[str, Figure]
  verdict: str = ""
  table: str = ""

  def printed(self, facts: dict[str, Any]) -> str:
    """What the command prints."""
    return shows_nothing(facts["config"]) or "\n".join(text for text in (self.table, self.verdict) if text)

  def markdown(self, facts: dict[str, Any]) -> str:
    """The text of summary.md."""
    parts = [f"# {self.title}\n\n{intervals_text(facts['config'])}\n"]
    verdict = shows_nothing(facts["config"]) or self.verdict
    sections = [("What this shows", verdict), *self.sections] if verdict else self.sections
    parts += [f"## {heading}\n\n{text}" for heading, text in sections]
    parts += [f"## Figures\n\n{''.join(f'![{name}]({name}.png)' + chr(10) for name in self.figures)}"]
    parts.append("## Where this comes from\n\n" + _provenance(facts))
    return "\n".join(parts)


@dataclasses.dataclass(frozen=True)
class Report:
  """What a report registers.

  Attributes:
    make: from rows, arrays and the facts of config.json to what it made.
    reads: the measures whose rows it reads.
    needs: keys of configs without which a setting does not offer it.
    limits: rules, by dotted key, for what it cannot tell apart or cannot do without.
  """

  make: Callable[[list[Row], dict, dict], Made]
  reads: tuple[str, ...]
  needs: tuple[str, ...] = ()
  limits: Mapping[str, Rule] = dataclasses.field(default_factory=dict)


def shows_nothing(config: Mapping[str, Any]) -> str:
  """What stands in place of a verdict where the config's preset is not made to show anything; else empty."""
  name = config["preset"]
  if PRESETS[name]:
    return ""
  real = ", ".join(other for other, shows in PRESETS.items() if shows)
  return (
    f"Nothing: the preset `{name}` only runs every part once, on models too small and too briefly trained to show "
    f"anything. No claim is judged. Presets that are made to show something: {real}.\n"
  )


def joined(first: Made, second: Made, name: str) -> Made:
  """Two reports on one run as one: the first's title, then the second's sections and figures, `name` before each."""
  return Made(
    title=first.title,
    sections=[*first.sections, *((f"{name.capitalize()}: {heading}", text) for heading, text in second.sections)],
    figures={**first.figures, **{name: second.figures["figure"]}},
    verdict=f"{first.verdict}\n{second.verdict}",
  )


def _provenance(facts: dict[str, Any]) -> str:
  config, versions = facts["config"], facts["versions"]
  lines = [
    ("config", f"{config['name']}:{config['preset']} (every value in config.json)"),
    ("seeds", seeds_text(config)),
    ("models trained on", ", ".join(facts["devices"])),
    ("measured on", f"{versions['processor']}, {versions['cores']} cores"),
    ("layout of lanes", ", ".join(facts["layouts"]) or "-"),
    ("versions", ", ".join(f"{name} {versions[name]}" for name in ("python", "jax", "jaxlib", "flax"))),
    ("commits that trained the models", ", ".join(facts["trained_at"])),
    ("commit that measured", facts["commit"]),
  ]
  return markdown_table(("what", "value"), lines)


def intervals_text(config: dict[str, Any]) -> str:
  """What the brackets of a summary mean, for the seeds that it has."""
  n = len(config["seeds"])
  if n < 2:
    return "One seed: no interval over seeds, and a claim that is judged by its interval is at most `partly`."
  half = t_quantile(0.975, n - 1) / math.sqrt(n)
  return (
    f"`mean [low, high]`: 95 % interval over {n} seeds, Student's t with {n - 1} degree{'s' if n > 2 else ''} of "
    f"freedom (the mean give or take {half:.1f} standard deviations between seeds), clipped to what is possible (0 to "
    "100 % for accuracies and shares, 100 points either way for their differences). Diverged seeds are left out and "
    "counted. Seeds that agree give a width of zero: the interval speaks of seeds, not of the finite test set."
  )


def seeds_text(config: dict[str, Any]) -> str:
  """Seeds as written in figures: `0, 1, 2`."""
  return ", ".join(str(seed) for seed in config["seeds"])


def footer(facts: dict[str, Any], *, intervals: bool = True) -> str:
  """The line under a figure; `intervals` says whether it draws any."""
  config = facts["config"]
  n = len(config["seeds"])
  drawn = f" (means; 95 % t intervals over {n} seeds)" if intervals and n > 1 else ""
  return (
    f"{config['name']}:{config['preset']} · {config['training']['steps']} steps · seeds {seeds_text(config)}{drawn} · "
    f"{', '.join(facts['devices'])} · jax {facts['versions']['jax']} · {facts['commit']}"
  )


def means(rows: Sequence[Row], field: str, *, label: str, style: str = "o-", colour: Any = None) -> Series:
  """Mean over seeds and its interval, by the values of one field, as a line."""
  cells = sorted(group(rows, field).items(), key=lambda item: item[0][0])
  found = [cell_summary(cell) for _, cell in cells]
  return Series(
    label=label,
    x=[key[0] for key, _ in cells],
    y=[cell.mean for cell in found],
    low=[cell.interval.low for cell in found],
    high=[cell.interval.high for cell in found],
    style=style,
    colour=colour,
  )


def bar_series(label: str, cells: Iterable[Sequence[Row]]) -> Series:
  """Mean over seeds and its interval of each cell, as the bars of one label; a gap for a cell without rows."""
  found = [cell_summary(cell) if cell else None for cell in cells]
  return Series(
    label=label,
    y=[cell.mean if cell else math.nan for cell in found],
    low=[cell.interval.low if cell else math.nan for cell in found],
    high=[cell.interval.high if cell else math.nan for cell in found],
  )


def guesses(rows: Iterable[Row], task: str, c_te: int, stage: str = "data") -> dict[str, float]:
  """Guess baselines of one test set, by the operand's name in the paper; with stage `prune`, of pruning's."""
  found = select(rows, metric="guess_baseline", task=task, c_te=c_te, stage=stage)
  return {f"guess O_{row['operand'].upper()}": row["value"] for row in found}


def pruning_guess(rows: Iterable[Row], task: str) -> dict[str, float]:
  """The guess baseline of O_PT on the strings that pruning is measured on, C_Te = 0."""
  return {name: value for name, value in guesses(rows, task, 0, "prune").items() if name.endswith("PT")}


def baseline_section(rows: Iterable[Row], *stages: str) -> tuple[str, str]:
  """Guess baselines as a table, of the test sets whose accuracies the report shows.

  Args:
    rows: of the experiment.
    *stages: `data` for the test sets of training, `prune` for those of pruning.
  """
  lines = [
    (
      task_name(row["task"]),
      f"C_Te = {row['c_te']}{_SETS[row['stage']]}",
      f"O_{row['operand'].upper()}",
      f"{100 * row['value']:.1f}",
    )
    for row in select(rows, metric="guess_baseline", stage=stages)
  ]
  text = "Accuracy, in percent, of always giving the most frequent answer of the test set.\n\n"
  return "Guess baselines", text + markdown_table(("task", "test set", "operand", "guess, %"), lines)


def four_cells(rows: Sequence[Row]) -> list[str]:
  """Acc. O_PT and O_FT at C_Te = 0, then at 1, as a table shows them."""
  return [format_cell(select(rows, metric=metric, c_te=c_te)) for c_te in (0, 1) for metric in ("acc_pt", "acc_ft")]


def present(rows: Iterable[Row], field: str) -> list:
  """Values that a field takes, ascending."""
  return sorted({row[field] for row in rows if row.get(field) is not None})


def mean_of(rows: Sequence[Row]) -> float:
  """Mean over seeds, NaN for none."""
  return cell_summary(rows).mean if rows else math.nan


def last_step(rows: Sequence[Row]) -> list[Row]:
  """The rows of the last evaluation."""
  last = max((row["step"] for row in rows), default=0)
  return [row for row in rows if row["step"] == last]
