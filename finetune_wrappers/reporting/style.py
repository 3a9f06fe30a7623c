"""Style of all figures: sizes, colours, tick labels. Leaves Matplotlib's global state alone."""

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, NullLocator

from finetune_wrappers.types import InputError

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DPI = 150

GREY = "#666666"
TITLE, LABEL, SMALL, SMALLEST = 11, 9, 7.5, 5.5  # points


def new_figure(
  *, rows: int, columns: int, size: tuple[float, float], title: str, footer: str, aside: float = 0.0
) -> tuple[Figure, list[Axes]]:
  """An empty grid of axes with a title above and a footer below.

  Args:
    rows: number of rows of axes.
    columns: number of columns.
    size: width and height of one set of axes, in inches.
    title: of the figure.
    footer: small print below the axes.
    aside: inches kept free on the right, for a legend.
  """
  width = max(columns * size[0] + aside, 3.8)
  footer = textwrap.fill(footer, int(width * 17))
  title = textwrap.fill(title, int((width - aside) * 10))
  height = rows * size[1] + 0.2 * (title.count("\n") + 1) + 0.15 * (footer.count("\n") + 1)
  layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08)
  figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
  FigureCanvasAgg(figure)
  figure.suptitle(title, fontsize=TITLE, fontweight="bold", x=0.01, ha="left")
  figure.supxlabel(footer, fontsize=SMALL, color=GREY, x=0.01, ha="left")
  axes = list(figure.subplots(rows, columns, squeeze=False).flat)
  for axis in axes:
    axis.tick_params(labelsize=SMALL)
  return figure, axes


def colours(labels: Iterable[str], ordered: bool) -> dict[str, Any]:
  """A colour for each label: of the palette, or of viridis (dark to light) if ordered or more than the palette has."""
  labels = list(dict.fromkeys(labels))
  if not ordered and len(labels) <= len(PALETTE):
    return dict(zip(labels, PALETTE, strict=False))
  last = max(len(labels) - 1, 1)
  return {label: mpl.colormaps["viridis"](0.9 * number / last) for number, label in enumerate(labels)}


def legend_inches(labels: Iterable[str]) -> float:
  """Width of a legend: its longest label, not counting TeX markup, plus the handle."""
  return max(len(re.sub(r"[${}_^\\]", "", label)) for label in labels) * 0.062 + 0.6


def name_axes(axis: Axes, *, title: str, xlabel: str, ylabel: str, inches: float = math.inf) -> None:
  """Sets title and labels of one set of axes; a title longer than `inches` is wrapped."""
  if math.isfinite(inches):
    title = textwrap.fill(title, int(inches / 0.075))
  axis.set_title(title, fontsize=LABEL, loc="left")
  axis.set_xlabel(xlabel, fontsize=LABEL)
  axis.set_ylabel(ylabel, fontsize=LABEL)


def drop_repeated_labels(axes: Sequence[Axes], columns: int) -> None:
  """Hides a y label that repeats the one on its left, and an x label that repeats the one below."""
  for number, axis in enumerate(axes):
    if number % columns and axis.get_ylabel() == axes[number - 1].get_ylabel():
      axis.yaxis.label.set_visible(False)
    if number + columns < len(axes) and axis.get_xlabel() == axes[number + columns].get_xlabel():
      axis.xaxis.label.set_visible(False)


def name_ticks(axis: Axes, which: Literal["x", "y"], labels: Sequence[Any] | None, count: int, inches: float) -> None:
  """Labels the ticks 0 .. count - 1: all of them if they stay readable, else every second, fifth, ...

  Args:
    axis: the axes.
    which: `x` or `y`. Long names on x are wrapped at spaces, then rotated (among single letters only the long
      ones); numbers are not rotated.
    labels: one for each tick, or None to number them.
    count: number of ticks.
    inches: length of the axis.

  Raises:
    InputError: if the number of labels is not `count`.
  """
  if labels is not None and len(labels) != count:
    raise InputError(f"{which}labels: {len(labels)} labels for {count} values; give one for each")
  names = [str(i) for i in range(count)] if labels is None else [str(label) for label in labels]
  if which == "x":
    names = [textwrap.fill(name, max(int(inches / count / 0.075), 8), break_long_words=False) for name in names]
  lengths = sorted(max(map(len, name.split("\n"))) for name in names) or [1]
  longest, usual = lengths[-1], lengths[len(lengths) // 2]
  turned = which == "x" and labels is not None and longest > 2 and (0.075 * longest + 0.05) * count > inches
  each = SMALLEST / 72 * 1.1 if which == "y" or turned else 0.075 * longest + 0.02
  every = next((n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if count * each <= n * inches), count)
  axis.set(**{f"{which}ticks": range(0, count, every), f"{which}ticklabels": names[::every]})
  crowded = count / every * SMALL / 72 * 1.2 > inches + 1e-6
  axis.tick_params(axis=which, labelsize=SMALLEST if crowded else SMALL)
  for text in axis.get_xticklabels() if turned else []:
    text.set_rotation(90 if usual > 2 or len(text.get_text()) > 2 else 0)


def watermark(figure: Figure, text: str) -> None:
  """Writes large pale text across the figure, above everything in it."""
  points = 72 * figure.get_figwidth() / (0.7 * len(text))  # a letter is about 0.6 of its size wide
  looks = {"color": "#b00000", "alpha": 0.35, "ha": "center", "va": "center", "zorder": 100}
  figure.text(0.5, 0.5, text, fontsize=min(points, 48.0), fontweight="bold", **looks).set_in_layout(False)


def symlog(axis: Axes, x: np.ndarray) -> None:
  """A logarithmic x axis that can show 0: linear up to the smallest positive x."""
  first = min(x[x > 0], default=1.0)
  axis.set_xscale("symlog", linthresh=first, linscale=0.4)
  powers = 10.0 ** np.arange(math.ceil(math.log10(first)), 1 + math.floor(math.log10(max(x.max(), first))))
  axis.xaxis.set_major_locator(FixedLocator([0.0, *powers]))  # Matplotlib's default ticks crowd the linear part
  axis.xaxis.set_minor_locator(NullLocator())
