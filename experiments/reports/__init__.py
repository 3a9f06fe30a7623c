"""Reports: functions of rows (and map arrays). Each module has `make(rows, arrays, facts) -> Made`."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure

from finetune_wrappers.reporting.plots import Series
from finetune_wrappers.reporting.rows import Row, group, select
from finetune_wrappers.reporting.tables import cell_summary, markdown_table

_RATES = {0.1: "η_L", 0.01: "η_M", 0.001: "η_S", 0.0001: "η_VS"}
TASKS = {"counter": "Counter", "max_identifier": "Max-identifier"}


@dataclasses.dataclass
class Made:
  """What a report made.

  Attributes:
    title: of summary.md.
    sections: (heading, Markdown) in order.
    figures: file name without ending to figure; one is called `figure`.
    short: what the command prints.
  """

  title: str
  sections: list[tuple[str, str]]
  figures: dict[str, Figure]
  short: str

  def markdown(self, facts: dict[str, Any]) -> str:
    """The text of summary.md."""
    parts = [f"# {self.title}\n"]
    parts += [f"## {heading}\n\n{text}" for heading, text in self.sections]
    parts += [f"## Figures\n\n{''.join(f'![{name}]({name}.png)' + chr(10) for name in self.figures)}"]
    parts.append("## Where this comes from\n\n" + _provenance(facts))
    return "\n".join(parts)


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
    ("intervals", "95 %, Student's t over seeds, unless said otherwise; no interval for one seed"),
  ]
  return markdown_table(("what", "value"), lines)


def seeds_text(config: dict[str, Any]) -> str:
  """Seeds as written in figures: `0, 1, 2`."""
  return ", ".join(str(seed) for seed in config["seeds"])


def footer(facts: dict[str, Any]) -> str:
  """The line under a figure."""
  config = facts["config"]
  return (
    f"{config['name']}:{config['preset']} · {config['training']['steps']} steps · seeds {seeds_text(config)} · "
    f"{', '.join(facts['devices'])} · jax {facts['versions']['jax']} · {facts['commit']}"
  )


def rate_name(rate: float) -> str:
  """The paper's name of a learning rate with its value: `η_M 0.01`."""
  value = float(f"{rate:.6g}")
  return f"{_RATES[value]} {value:g}" if value in _RATES else f"η {value:g}"


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


def guesses(rows: Iterable[Row], task: str, c_te: int) -> dict[str, float]:
  """Guess baselines of one test set, by the operand's name in the paper."""
  found = select(rows, metric="guess_baseline", task=task, c_te=c_te)
  return {f"guess O_{row['operand'].upper()}": row["value"] for row in found}


def baseline_section(rows: Iterable[Row]) -> tuple[str, str]:
  """Guess baselines as a table."""
  found = select(rows, metric="guess_baseline")
  lines = [
    (TASKS[r["task"]], f"C_Te = {r['c_te']}", f"O_{r['operand'].upper()}", f"{100 * r['value']:.1f}") for r in found
  ]
  text = "Accuracy, in percent, of always giving the most frequent answer of the test set.\n\n"
  return "Guess baselines", text + markdown_table(("task", "test set", "operand", "guess, %"), lines)


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
