"""Figures, judged by their pixels and by where their texts come to lie."""

import itertools
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from finetune_wrappers.reporting.plots import (
  Heatmap,
  Panel,
  Series,
  bars_figure,
  heatmaps_figure,
  lines_figure,
  save_figure,
)
from finetune_wrappers.reporting.style import DPI, PALETTE
from finetune_wrappers.types import InputError

STEPS = [0, 10, 20, 50, 100, 1000, 10_000]
WORDS = {
  "title": "Fine-tuning with a spurious correlation hides the pretrained capability without removing it",
  "footer": "configs/tab03_behaviour.py:paper, 5 seeds (shaded: 95 % Student t interval), one CPU, float32",
}


def lines():
  panels = []
  for title in ("Counter", "Max-identifier", "Counter, $C_{Te}$ = 1", "Max-identifier, $C_{Te}$ = 1"):
    series = []
    for c_tr in (0, 0.2, 0.5, 0.6, 0.8, 0.9, 1):
      y = np.linspace(1, c_tr, len(STEPS))
      series.append(Series(f"$C_{{Tr}}$ = {c_tr}", y, STEPS, np.clip(y - 0.1, 0, 1), np.clip(y + 0.1, 0, 1)))
    panels.append(Panel(title, "fine-tuning step", "Acc. $O_{PT}$, %", series, {"guess": 0.12}, xscale="symlog"))
  return lines_figure(panels, ordered=True, **WORDS)


def one_line_panel():
  y = np.linspace(0, 0.7, 21)
  y[15:] = np.nan
  series = [Series("gradient score", y, range(21)), Series("random weights", y / 2, range(21), style="s--")]
  return lines_figure([Panel("Counter", "K, pruned weights", "accuracy, %", series, {"guess": 0.2})], **WORDS)


def many_series():
  series = [Series(f"unit {i}, gradient score", np.full(3, i / 25), [1, 10, 100]) for i in range(30)]
  return lines_figure([Panel("Counter", "step", "loss, nats", series, percent=False, xscale="log")], **WORDS)


def bars():
  y = np.array([0.9, 0.5, np.nan, 0.02])
  missing = np.full(4, np.nan)
  series = [Series("ours", y, low=y - 0.02, high=y + 0.05), Series("one seed", y, low=missing, high=missing)]
  names = ["0.1", "0.01", "0.001", "0.0001"]
  panels = [Panel(t, "learning rate", "accuracy, %", series, {"guess": 0.1}, categories=names) for t in "abc"]
  return bars_figure(panels, **WORDS)


def long_categories():
  names = ["a long category name", "another long one", "third_one_without_any_space"]
  return bars_figure([Panel("", "probe", "accuracy, %", [Series("a", [0.1, 0.2, 0.3])], categories=names)], **WORDS)


def many_long_categories():
  names = [f"blocks_{i}_mlp_linear_in_weight" for i in range(12)]
  series = [Series("ours", np.linspace(0, 1, 12)), Series("random", np.linspace(0, 0.1, 12))]
  return bars_figure([Panel("", "pruned weight", "accuracy, %", series, categories=names)], **WORDS)


def attention(letters=20, rows=2):
  tokens = ["bos", *itertools.islice(itertools.cycle("abcdefghi"), letters), "pad", "pad"]
  weights = np.random.default_rng(0).dirichlet(np.full(len(tokens), 0.1), len(tokens))
  return heatmaps_figure([[Heatmap(f"block {b}", weights, tokens, tokens) for b in range(3)]] * rows, **WORDS)


def long_attention():
  return attention(45, rows=1)


def activations():
  values = np.random.default_rng(0).normal(size=(23, 200))
  maps = [[Heatmap(title, values, None, list("abcdefghijklmnopqrstuvw"), "hidden unit", "position")] for title in "ab"]
  return heatmaps_figure(maps, colour_label="activation", limits=None, **WORDS)


FIGURES = [
  lines,
  one_line_panel,
  many_series,
  bars,
  long_categories,
  many_long_categories,
  attention,
  long_attention,
  activations,
]


def pixels(figure, tmp_path):
  save_figure(figure, tmp_path / "figure.png")
  with Image.open(tmp_path / "figure.png") as image:
    return np.asarray(image.convert("RGB"), int)


def painted(image, colour):
  """Where the image has this colour."""
  return (np.abs(image - np.round(255 * np.array(to_rgb(colour)))) <= 2).all(axis=-1)


def boxes(figure):
  """(text, box) of everything that can be read, in pixels."""
  texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
  texts += [figure._suptitle, figure._supxlabel]
  for axis in figure.axes:
    texts += [axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label]
    for side in (axis.xaxis, axis.yaxis):
      low, high = sorted(side.get_view_interval())
      ticks = [tick for tick in side.get_major_ticks() if low <= tick.get_loc() <= high]
      texts += [label for tick in ticks for label in (tick.label1, tick.label2)]
  shown = {id(text): text for text in texts if text.get_visible() and text.get_text()}
  return [(text.get_text(), text.get_window_extent()) for text in shown.values()]


@pytest.mark.parametrize("make", FIGURES)
def test_nothing_is_blank_clipped_or_overlapping(make, tmp_path):
  figure = make()
  image = pixels(figure, tmp_path)
  assert 0.02 < (image < 250).any(axis=-1).mean() < 0.9
  for edge in (image[:2], image[-2:], image[:, :2], image[:, -2:]):
    assert (edge == 255).all()
  figure.set_dpi(150)
  figure.canvas.draw()
  read = boxes(figure)
  assert len(read) > 8
  for text, box in read:
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
  for (text, box), (other, other_box) in itertools.combinations(read, 2):
    wide = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
    high = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
    assert wide <= 1 or high <= 1, f"{text!r} overlaps {other!r} by {wide:.0f} x {high:.0f} pixels"


def test_a_bar_of_twice_the_value_has_twice_the_pixels(tmp_path):
  series = [Series("a", [0.3, 0.1]), Series("b", [0.6, 0.2])]
  image = pixels(bars_figure([Panel("", "x", "%", series, categories=["p", "q"])], title="", footer=""), tmp_path)
  image[:, int(0.8 * image.shape[1]) :] = 255  # the legend
  a, b = (painted(image, colour).sum() for colour in PALETTE[:2])
  assert a > 1000 and b / a == pytest.approx(2, abs=0.1)


def test_a_line_runs_where_its_values_are(tmp_path):
  series = [Series("a", [1.0, 1.0], [0, 1], style="-"), Series("b", [0.0, np.nan], [0, 1])]
  image = pixels(lines_figure([Panel("", "x", "%", series)], title="", footer=""), tmp_path)
  image[:, int(0.75 * image.shape[1]) :] = 255
  rows_a, rows_b = (np.flatnonzero(painted(image, colour).any(axis=1)) for colour in PALETTE[:2])
  assert rows_a.max() < rows_b.min()
  assert painted(image, PALETTE[0]).any(axis=0).sum() > 10 * painted(image, PALETTE[1]).any(axis=0).sum()


def test_attended_position_is_on_x_and_attending_downward(tmp_path):
  weights = np.zeros((8, 8))
  weights[0, 6] = 1.0
  image = pixels(heatmaps_figure([[Heatmap("", weights)]], title="", footer=""), tmp_path)
  image[:, int(0.8 * image.shape[1]) :] = 255  # the colour bar
  y, x = np.nonzero(painted(image, mpl.colormaps["Blues"](1.0)))
  assert len(y) > 100
  assert y.mean() < 0.4 * image.shape[0] and x.mean() > 0.5 * image.shape[1]


def test_one_label_has_one_colour_in_all_panels_and_can_be_given(tmp_path):
  first = Panel("", "x", "%", [Series("a", [0.5], [0]), Series("b", [0.2], [0])])
  second = Panel("", "x", "%", [Series("b", [0.9], [0]), Series("c", [0.1], [0], colour="#123456")])
  figure = lines_figure([first, second], title="", footer="")
  colours = {(i, line.get_label()): line.get_color() for i, axis in enumerate(figure.axes) for line in axis.lines}
  assert colours[0, "b"] == colours[1, "b"] != colours[0, "a"] and colours[1, "c"] == "#123456"
  assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]


def test_more_labels_than_the_palette_stay_apart():
  series = [Series(str(i), [0.5], [0]) for i in range(12)]
  figure = lines_figure([Panel("", "x", "%", series)], title="", footer="")
  assert len({line.get_color() for line in figure.axes[0].lines}) == 12


def test_equal_figures_are_equal_files_and_a_write_leaves_nothing_behind(tmp_path):
  save_figure(one_line_panel(), tmp_path / "new" / "a.png")
  save_figure(one_line_panel(), tmp_path / "new" / "b.png")
  assert (tmp_path / "new" / "a.png").read_bytes() == (tmp_path / "new" / "b.png").read_bytes()
  assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.png", "b.png"]
  with Image.open(tmp_path / "new" / "a.png") as image:
    assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)


def test_no_global_state_is_touched():
  before = dict(mpl.rcParams)
  bars().canvas.draw()
  assert dict(mpl.rcParams) == before
  code = "import sys, finetune_wrappers.reporting.plots as p; print({'matplotlib.pyplot', 'jax'} & set(sys.modules))"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "set()"


def panel(**changes):
  return Panel(**{"title": "t", "xlabel": "x", "ylabel": "y", "series": [Series("a", [0.1, 0.2], [1, 2])], **changes})


@pytest.mark.parametrize(
  "call",
  [
    lambda: lines_figure([], **WORDS),
    lambda: lines_figure([panel(xscale="cubic")], **WORDS),
    lambda: lines_figure([panel(series=[Series("a", [0.1], [1, 2])])], **WORDS),
    lambda: lines_figure([panel(series=[Series("a", [0.1, 0.2], [1, 2], low=[0.0, 0.1])])], **WORDS),
    lambda: bars_figure([panel(categories=["only one"])], **WORDS),
    lambda: heatmaps_figure([], **WORDS),
    lambda: heatmaps_figure([[Heatmap("", np.eye(2))], []], **WORDS),
    lambda: heatmaps_figure([[Heatmap("", np.ones(3))]], **WORDS),
    lambda: heatmaps_figure([[Heatmap("", np.eye(2), ["a"])]], **WORDS),
  ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(call):
  with pytest.raises(InputError, match=r"\A[^\n]+\Z"):
    call()


def test_a_baseline_looks_the_same_in_every_panel():
  line = [Series("a", [0.1, 0.2], x=[0, 1])]
  panels = [Panel("1", "x", "y", line, {"threshold": 0.8, "guess": 0.2}), Panel("2", "x", "y", line, {"guess": 0.3})]
  figure = lines_figure(panels, title="t", footer="f")
  styles = [{x.get_label(): x.get_linestyle() for x in axis.lines}["guess"] for axis in figure.axes]
  assert styles[0] == styles[1] != {x.get_label(): x.get_linestyle() for x in figure.axes[0].lines}["threshold"]


@pytest.mark.parametrize("make", FIGURES)
def test_a_mark_crosses_the_figure_and_moves_nothing(make, tmp_path):
  save_figure(make(), tmp_path / "plain.png")
  save_figure(make(), tmp_path / "marked.png", mark="smoke: shows nothing")
  plain, marked = (np.asarray(Image.open(tmp_path / name).convert("RGB"), int) for name in ("plain.png", "marked.png"))
  assert plain.shape == marked.shape
  rows, columns = np.nonzero(np.abs(plain - marked).sum(axis=2))
  height, width = plain.shape[:2]
  assert 0.03 * width < columns.min() and columns.max() < 0.97 * width and np.ptp(columns) > 0.4 * width
  assert abs(columns.mean() / width - 0.5) < 0.05 and abs(rows.mean() / height - 0.5) < 0.1
  assert 8 * DPI / 72 < np.ptp(rows) < 0.3 * height  # one line, large enough to read
