"""Settings, measures and reports are found by their files: each registers itself under one name in its module."""

import functools
import importlib
import pkgutil
from typing import Any


@functools.cache
def registered(package: str, name: str) -> dict[str, Any]:
  """What the modules of a package register.

  Args:
    package: such as `experiments.settings`.
    name: of the module's attribute, such as `SETTING`; modules without it are left out.

  Returns:
    Module's name to what it registers, in alphabetical order.
  """
  names = sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))
  modules = {name: vars(importlib.import_module(f"{package}.{name}")) for name in names}
  return {short: found[name] for short, found in modules.items() if name in found}
