"""Runs a config: chooses its setting, and the devices before JAX starts."""

import importlib
import os
import pathlib

import jax
from ml_collections import ConfigDict

from finetune_wrappers.types import InputError

SETTINGS = ("tracr",)


def run(config: ConfigDict, workdir: str) -> tuple[pathlib.Path, str]:
  """Everything from a config to its folder.

  Args:
    config: from a module of `configs`.
    workdir: stages are shared by all experiments in it.

  Returns:
    (`workdir/<name>` with rows.jsonl, summary.md and figure.png, the short table to print).

  Raises:
    InputError: for anything the user can mend.
  """
  if config.setting not in SETTINGS:
    raise InputError(f"setting: {config.setting!r} is not one of {', '.join(SETTINGS)}")
  use_all_cores()
  return importlib.import_module(f"experiments.{config.setting}").run(config, workdir)


def use_all_cores() -> None:
  """One simulated CPU device a core, so that lanes run side by side.

  JAX takes this only before its backend starts; later, as when a notebook has used JAX already, the devices
  that are there are used.
  """
  try:
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
  except RuntimeError:
    return
