"""Runs a config: plan, train what is missing, analyse, write rows, report."""

import importlib
import os
import pathlib
import sys
from typing import Any

from ml_collections import ConfigDict

from finetune_wrappers.types import InputError

SETTINGS = ("tracr",)


def run(config: ConfigDict, workdir: str) -> pathlib.Path:
  """Everything from a config to its folder.

  Args:
    config: from a module of `configs`.
    workdir: stages are shared by all experiments in it.

  Returns:
    `workdir/<name>`, with rows.jsonl, summary.md and figure.png.

  Raises:
    InputError: for anything the user can mend.
  """
  if config.setting not in SETTINGS:
    raise InputError(f"setting: {config.setting!r} is not one of {', '.join(SETTINGS)}")
  use_all_cores()
  setting = importlib.import_module(f"experiments.{config.setting}")
  return setting.run(config, workdir)


def use_all_cores() -> None:
  """One simulated CPU device a core, so that lanes run side by side; before JAX starts its backend."""
  import jax

  if not jax._src.xla_bridge.backends_are_initialized():
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


class Progress:
  """A bar with an ETA on standard error, counting lane-steps."""

  def __init__(self) -> None:
    self._bar: Any = None

  def __call__(self, done: int, total: int, text: str) -> None:
    """Shows `done` of `total` lane-steps and what is being done."""
    from tqdm import tqdm

    if self._bar is None:
      self._bar = tqdm(total=total, unit="step", unit_scale=True, file=sys.stderr, dynamic_ncols=True, smoothing=0.1)
    self._bar.total = total
    self._bar.set_description(text, refresh=False)
    self._bar.update(done - self._bar.n)
    self._bar.refresh()

  def close(self) -> None:
    """Ends the bar's line."""
    if self._bar is not None:
      self._bar.close()
      self._bar = None
