"""A progress bar with an ETA on standard error."""

import sys
from typing import Any


class Progress:
  """Counts lane-steps; a context manager, so that the bar's line ends whatever happens."""

  def __init__(self) -> None:
    self._bar: Any = None

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_) -> None:
    if self._bar is not None:
      self._bar.close()

  def __call__(self, done: int, total: int, text: str) -> None:
    """Shows `done` of `total` lane-steps and what is being done."""
    if self._bar is None:
      from tqdm import tqdm

      self._bar = tqdm(total=total, unit="step", unit_scale=True, file=sys.stderr, dynamic_ncols=True, smoothing=0.1)
    self._bar.total = total
    self._bar.set_description(text, refresh=False)
    self._bar.update(done - self._bar.n)
    self._bar.refresh()

  def note(self, text: str) -> None:
    """Says what is being done where there are no steps to count."""
    total = self._bar.total if self._bar is not None else 0
    self(total, total, text)
