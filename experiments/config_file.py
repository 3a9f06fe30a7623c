"""The config of a command: the file that --config names, and what --config.KEY=VALUE changes in it."""

import ast
import difflib
import importlib.util
import pathlib
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from finetune_wrappers.types import InputError

_WHERE = "see configs/common.py and its setting's *_common.py"
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


class Override(NamedTuple):
  """One key of a config and its text on the command line; None for a key without a value."""

  key: str
  text: str | None


def split(argv: Sequence[str]) -> tuple[list[str], list[Override]]:
  """(arguments for absl, overrides) of a command line; flag files are expanded already.

  Raises:
    InputError: for a key that is given twice: neither of its values is surely the one meant.
  """
  rest, found = [], []
  left = iter([*argv])
  for argument in left:
    if argument == "--":
      rest += [argument, *left]
      break
    flag, _, text = argument.partition("=")
    prefix, _, key = flag.partition(".")
    if prefix not in ("--config", "-config", "--noconfig", "-noconfig") or not key:
      rest.append(argument)
      continue
    value = text if "=" in argument else "false" if prefix.lstrip("-").startswith("no") else None
    if any(key == other.key for other in found):
      raise InputError(f"{key}: given twice; give each key once, a tuple whole, as --config.seeds='(0,1)'")
    found.append(Override(key, value))
  return rest, found


def load(place: str, overrides: Sequence[Override]) -> ConfigDict:
  """The locked config.

  Args:
    place: path of a file, and after a colon what its get_config takes, the preset.
    overrides: from `split`. Values are checked later, with all others, by `schema`.

  Raises:
    InputError: for a file that is missing, fails or returns no config, and for a key that the config lacks.
  """
  path, *preset = place.split(":", 1)
  config = _loaded(path, preset)
  with config.unlocked(), config.ignore_type():
    for key, text in overrides:
      if key == "preset":
        raise InputError("preset: is chosen after the colon; use --config=FILE:PRESET")
      *sections, last = key.split(".")
      section: Any = config
      for name in sections:
        section = section.get(name) if isinstance(section, ConfigDict) else None
      if not isinstance(section, ConfigDict) or last not in section:
        raise InputError(f"{key}: is not one of the config's keys; {_hint(config, key)}{_WHERE}")
      section[last] = _value(key, text, section[last])
  return config.lock()


def _loaded(path: str, preset: Sequence[str]) -> ConfigDict:
  """What the file's get_config returns."""
  if not pathlib.Path(path).is_file():
    raise InputError("config: that file does not exist; use configs/<name>.py:<preset>, as configs/quickstart.py:quick")
  spec = importlib.util.spec_from_file_location("config", path)
  if spec is None or spec.loader is None:
    raise InputError(f"config: {path} is not a Python file; use configs/<name>.py:<preset>")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    make = getattr(module, "get_config", None)
    config = make(*preset) if callable(make) else make
  except InputError:
    raise
  except (Exception, SystemExit) as error:  # whatever the user's file does
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    what = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    raise InputError(f"config: {path}{f', line {line}' if line else ''}, raises {what}") from error
  if not callable(make):
    raise InputError(f"config: {path} has no function get_config(preset), which returns the config")
  if not isinstance(config, ConfigDict):
    kind = "None" if config is None else f"a {type(config).__name__}"
    raise InputError(f"config: get_config of {path} returns {kind}, not an ml_collections.ConfigDict")
  return config


def _value(key: str, text: str | None, before: Any) -> Any:
  """The text as a value of the default's type, where it can be one; else as Python reads it, or the text itself."""
  if text is None and not isinstance(before, bool):
    raise InputError(f"{key}: has no value; use --config.{key}=VALUE")
  if text is None or isinstance(before, str):
    return True if text is None else text
  if isinstance(before, bool):
    return _TRUTHS.get(text.lower(), text)
  try:
    value = ast.literal_eval(text.strip())
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    value = text
  if isinstance(before, tuple):
    return tuple(value) if isinstance(value, tuple | list) else (value,)
  if isinstance(before, float) and type(value) is int and abs(value) < 2**127:
    return float(value)
  return value


def _hint(config: ConfigDict, key: str) -> str:
  close = difflib.get_close_matches(key, list(_keys(config)), n=1)
  whole = ", which is set whole" if "[" in key else ""
  return f"did you mean {close[0]}{whole}? " if close else ""


def _keys(section: ConfigDict, prefix: str = "") -> Iterator[str]:
  """Every dotted key."""
  for name, value in section.items():
    yield f"{prefix}{name}"
    if isinstance(value, ConfigDict):
      yield from _keys(value, f"{prefix}{name}.")
