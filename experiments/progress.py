"""A progress bar with an ETA on standard error."""

import sys
from typing import Any


class Progress:
  """Counts lane-steps, then measured models; a context manager, so that the bar's line always ends."""

  def __init__(self) -> None:
    self._bar: Any = None
    self._unit = "step"

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_) -> None:
    if self._bar is not None:
      self._bar.close()

  def __call__(self, done: int | None, total: int, text: str) -> None:
    """Shows `done` (None: as before) of `total`, and the text."""
    if self._bar is None:
      from tqdm import tqdm

      self._bar = tqdm(
        total=total, unit=self._unit, unit_scale=True, file=sys.stderr, dynamic_ncols=True, smoothing=0.1
      )
    self._bar.total = total
    self._bar.set_description(text, refresh=False)
    self._bar.update(0 if done is None else done - self._bar.n)
    self._bar.refresh()

  def count(self, unit: str) -> None:
    """Ends the bar; the next one counts `unit`s."""
    if self._bar is not None:
      self._bar.close()
    self._bar, self._unit = None, unit
