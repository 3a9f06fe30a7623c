"""Figures: grids of lines, bars, histograms and heat maps in one style, without pyplot's global state.

Panels are plain data, drawn in the order given; fractions are shown in percent. Each label has one colour throughout
the figure and one entry in the legend on the right. Colour-blind readers can tell the colours apart (Okabe and Ito's,
or viridis for an ordered sweep). The caller gives each figure a title and a footer (config, seeds, device).
"""

import dataclasses
import io
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from finetune_wrappers.files import write_atomically
from finetune_wrappers.reporting import style
from finetune_wrappers.types import InputError

XSCALES = ("linear", "log", "symlog")

_GUESS = {"color": style.GREY, "linewidth": 1.2}


@dataclasses.dataclass(frozen=True)
class Series:
  """One line, or one bar in each category.

  Attributes:
    label: the same label has the same colour in every panel.
    y: [N]; NaN leaves a gap.
    x: [N] for lines; unused for bars.
    low: [N], lower ends of the intervals, NaN for a point without one; None for no intervals.
    high: [N], upper ends, as `low`.
    style: Matplotlib's format of a line (`-`, `--`), of a line with markers (`o-`, `s--`) or of markers alone (`o`).
    colour: overrides the palette.
  """

  label: str
  y: Any
  x: Any = None
  low: Any = None
  high: Any = None
  style: str = "o-"
  colour: str | None = None


@dataclasses.dataclass(frozen=True)
class Panel:
  """One set of axes.

  Attributes:
    title: above the axes.
    xlabel: with its unit.
    ylabel: with its unit.
    series: lines or bars.
    baselines: height of a dotted or dashed line by its label: {"guess": 0.12}.
    categories: names of the groups of bars; None for lines.
    percent: whether y holds fractions, drawn on an axis from 0 to 100 %; else the axis fits the data.
    from_zero: whether an axis that fits the data starts at 0.
    xscale: `linear`, `log`, or `symlog` (logarithmic, but can show step 0).
  """

  title: str
  xlabel: str
  ylabel: str
  series: Sequence[Series]
  baselines: Mapping[str, float] = dataclasses.field(default_factory=dict)
  categories: Sequence[str] | None = None
  percent: bool = True
  from_zero: bool = False
  xscale: str = "linear"


@dataclasses.dataclass(frozen=True)
class Heatmap:
  """One matrix.

  Attributes:
    title: above the matrix.
    values: [Y, X], first row on top; such as attending by attended position, or position by channel.
    xlabels: X tick labels, or None for numbers.
    ylabels: Y tick labels, or None for numbers.
    xlabel: of the columns.
    ylabel: of the rows.
  """

  title: str
  values: Any
  xlabels: Sequence[str] | None = None
  ylabels: Sequence[str] | None = None
  xlabel: str = "attended position"
  ylabel: str = "attending position"


def lines_figure(
  panels: Sequence[Panel], *, title: str, footer: str, columns: int = 3, ordered: bool = False
) -> Figure:
  """A grid of line plots; intervals are shaded.

  Args:
    panels: row by row.
    title: of the figure.
    footer: config, seeds, device.
    columns: most panels in a row.
    ordered: whether the labels are values of one sweep (C_Tr); their colours then go from dark to light.

  Raises:
    InputError: for no panels, an unknown xscale, or a series whose lengths differ.
  """
  size = (3.4, 2.7) if len(panels) > 1 else (5.4, 3.6)
  return _grid(panels, _draw_lines, title, footer, columns, ordered, size)


def bars_figure(panels: Sequence[Panel], *, title: str, footer: str, columns: int = 2, ordered: bool = False) -> Figure:
  """A grid of grouped bars with error bars; `Panel.categories` names the groups, a NaN is drawn as x.

  Arguments and errors are those of `lines_figure`.
  """
  groups = max((len(panel.categories or ()) for panel in panels), default=0)
  bars = max((len(panel.series) for panel in panels), default=0)
  word = max(
    (len(word) for panel in panels for name in panel.categories or () for word in str(name).split()), default=0
  )
  beside = groups * (0.075 * word + 0.1) + 0.5  # inches, names not rotated; rotated names need height
  size = (min(max(3.4, 0.16 * groups * bars, beside), 11.0), 2.7 + (0.075 * word if beside > 11.0 else 0.0))
  return _grid(panels, _draw_bars, title, footer, columns, ordered, size)


def heatmaps_figure(
  grid: Sequence[Sequence[Heatmap]],
  *,
  title: str,
  footer: str,
  colour_label: str = "attention weight",
  limits: tuple[float, float] | None = (0.0, 1.0),
) -> Figure:
  """A grid of matrices that share one colour bar: attention maps, activation maps.

  Args:
    grid: rows of heat maps, all of the same length.
    title: of the figure.
    footer: config, seeds, device.
    colour_label: quantity shown as colour, with its unit.
    limits: ends of the colour bar; None for the range of the data (symmetric and two-coloured if some are negative).

  Raises:
    InputError: for an empty or ragged grid, or if labels and values differ in number.
  """
  if not grid or not grid[0] or len({len(row) for row in grid}) != 1:
    raise InputError("grid: empty or ragged; give rows of the same length, at least 1")
  values = [np.asarray(heatmap.values, float) for row in grid for heatmap in row]
  if any(v.ndim != 2 or v.size == 0 for v in values):
    raise InputError("values: must be a matrix that is not empty")
  low, high = limits or (min(np.nanmin(v) for v in values), max(np.nanmax(v) for v in values))
  colours = "Blues"
  if limits is None and low < 0:
    low, high, colours = -max(-low, high), max(-low, high), "RdBu_r"
  # An inch for 8 labels keeps them readable; the bounds keep the figure on a page.
  width = min(max(max(v.shape[1] for v in values) / 8, 2.2), 4.6)
  height = min(max(max(v.shape[0] for v in values) / 8, 2.0), 4.6)
  figure, axes = style.new_figure(
    rows=len(grid), columns=len(grid[0]), size=(width + 0.6, height + 0.7), title=title, footer=footer, aside=0.8
  )
  for axis, heatmap, matrix in zip(axes, (heatmap for row in grid for heatmap in row), values, strict=True):
    aspect = "equal" if matrix.shape[0] == matrix.shape[1] else "auto"
    axis.imshow(matrix, cmap=colours, vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    style.name_ticks(axis, "x", heatmap.xlabels, matrix.shape[1], width)
    style.name_ticks(axis, "y", heatmap.ylabels, matrix.shape[0], height)
    style.name_axes(axis, title=heatmap.title, xlabel=heatmap.xlabel, ylabel=heatmap.ylabel)
  style.drop_repeated_labels(axes, len(grid[0]))
  bar = figure.colorbar(axes[0].images[0], ax=axes, shrink=min(1.0, 3.5 / (height * len(grid))), pad=0.02)
  bar.set_label(colour_label, fontsize=style.LABEL)
  bar.ax.tick_params(labelsize=style.SMALL)
  return figure


def save_figure(figure: Figure, path: str | os.PathLike, *, mark: str = "") -> None:
  """Writes a PNG at 150 dpi, whole or not at all; equal figures give equal files.

  Args:
    figure: from this module.
    path: of the file, replaced if it exists.
    mark: large pale text across the figure, for one that is not to be read as a result; none if empty.

  Raises:
    OSError: if the file cannot be written.
  """
  if mark:
    style.watermark(figure, mark)
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=style.DPI, metadata={"Software": None})
  write_atomically(path, buffer.getvalue())


def _grid(
  panels: Sequence[Panel], draw: Any, title: str, footer: str, columns: int, ordered: bool, size: tuple[float, float]
) -> Figure:
  if not panels:
    raise InputError("panels: empty; give at least one")
  columns = min(columns, len(panels))
  names = [series.label for panel in panels for series in panel.series]
  colours = style.colours(names, ordered) | {s.label: s.colour for p in panels for s in p.series if s.colour}
  baselines = dict.fromkeys(label for panel in panels for label in panel.baselines)
  dashes = dict(
    zip(baselines, itertools.cycle((":", (0, (6, 2, 1, 2, 1, 2)), "--")), strict=False)
  )  # one for each label, in every panel
  names = list(dict.fromkeys([*names, *baselines]))
  aside = style.legend_inches(names) if len(names) > 1 else 0.0
  rows = math.ceil(len(panels) / columns)
  size = (size[0], max(size[1], 0.17 * len(names) / rows))  # the legend must fit as well
  figure, axes = style.new_figure(rows=rows, columns=columns, size=size, title=title, footer=footer, aside=aside)
  for axis in axes[len(panels) :]:
    axis.remove()
  handles: dict[str, Any] = dict.fromkeys(names)
  for axis, panel in zip(axes, panels, strict=False):
    draw(axis, panel, colours)
    for label, height in panel.baselines.items():
      axis.axhline(height * (100 if panel.percent else 1), label=label, linestyle=dashes[label], **_GUESS)
    if panel.percent:
      axis.set(ylim=(-2, 102), yticks=range(0, 101, 20))
    elif panel.from_zero:
      axis.set_ylim(bottom=0)
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    style.name_axes(axis, title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel, inches=size[0])
    if panel.categories is not None:
      style.name_ticks(axis, "x", panel.categories, len(panel.categories), size[0] - 0.5)
    for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
      handles[label] = handle
  style.drop_repeated_labels(axes[: len(panels)], columns)
  if len(handles) > 1:
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=style.SMALL, frameon=False)
  return figure


def _draw_lines(axis: Axes, panel: Panel, colours: Mapping[str, Any]) -> None:
  if panel.xscale not in XSCALES:
    raise InputError(f"xscale: {panel.xscale!r} is not one of {', '.join(XSCALES)}")
  for series in panel.series:
    x, (y, interval) = np.asarray(series.x, float), _heights(panel, series, np.size(series.x))
    looks = {"color": colours[series.label], "linewidth": 1.5, "markersize": 3.5, "clip_on": False}
    axis.plot(x, y, series.style, label=series.label, **looks)
    if interval:
      spread, looks = (axis.fill_between, (0.18, 0.0)) if set(series.style) & set("-:") else (axis.vlines, (1.0, 0.9))
      spread(x, *interval, color=colours[series.label], alpha=looks[0], linewidth=looks[1])
  if panel.xscale == "symlog":
    x = np.concatenate([np.asarray(series.x, float) for series in panel.series] or [[1.0]])
    style.symlog(axis, x)
  elif panel.xscale == "log":
    axis.set_xscale("log")
  elif all(np.all(np.mod(series.x, 1) == 0) for series in panel.series):
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _draw_bars(axis: Axes, panel: Panel, colours: Mapping[str, Any]) -> None:
  categories = panel.categories or ()
  width = 0.8 / max(len(panel.series), 1)
  for number, series in enumerate(panel.series):
    y, interval = _heights(panel, series, len(categories))
    x = np.arange(len(categories)) + (number - (len(panel.series) - 1) / 2) * width
    axis.bar(x, y, width, color=colours[series.label], label=series.label)
    if interval:
      low, high = interval  # drawn around its own middle: an interval need not contain the value
      axis.errorbar(x, (low + high) / 2, (high - low) / 2, fmt="none", ecolor="#222222", elinewidth=0.9, capsize=1.5)
    for gap in x[np.isnan(y)]:
      axis.plot(gap, 1.5 if panel.percent else 0.0, "x", color=colours[series.label])
  axis.set_xlim(-0.6, len(categories) - 0.4)


def _heights(panel: Panel, series: Series, length: int) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
  """Heights and (low, high), if any, in the unit of the axis."""
  scale = 100.0 if panel.percent else 1.0
  ends = [end for end in (series.low, series.high) if end is not None]
  y, *ends = (scale * np.asarray(values, float) for values in (series.y, *ends))
  if len(ends) == 1 or any(values.shape != (length,) for values in (y, *ends)):
    raise InputError(
      f"series: {series.label!r} in {panel.title!r} has y, low or high not of length {length}; give all of that length"
    )
  return y, (ends[0], ends[1]) if ends else None
