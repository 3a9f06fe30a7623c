"""Configs as nobody should write them, for the fuzz tests."""

import importlib
import math

from ml_collections import ConfigDict

# Wrong types, wrong ranges, and what is right for some key.
HOSTILE = (
  *(None, True, False, 0, 1, 2, 7, -1, 10**6, 10**9, 10**30, 0.5, 1.0, 3.7, -0.5, 1e300, 1e-300),
  *(math.nan, math.inf, -math.inf, 1 + 2j, b"x", [], [0], {}, {"a": 1}, {1, 2}, len),
  *("", "12", "counter", "random", "blocks", "stages", "../x", "a\nb", "\0", "x" * 300),
  *((), (0,), (1,), (0, 1), (1, 1), (-1,), (10**30,), (True,), (None,), ({},), ([],), ((0, 1),), (3.7,), (0.5,)),
  *(
    (1.0,),
    (0.25, 0.75),
    (0.5, math.nan),
    (math.inf,),
    ("a",),
    ("a", "a"),
    ("counter", "index"),
    ("x" * 300,),
    (b"x",),
  ),
)


def config_of(name):
  return importlib.import_module(f"configs.{name}").get_config("smoke")


def leaves(section, prefix=""):
  """Dotted key and value of every key that is no section."""
  for name, value in section.items():
    if isinstance(value, dict):
      yield from leaves(value, f"{prefix}{name}.")
    else:
      yield prefix + name, value


def changed(config, **values):
  """A copy with other values, whatever their type; `__` in a key stands for a dot."""
  found = config.to_dict()
  for key, value in values.items():
    *path, last = key.replace("__", ".").split(".")
    section = found
    for part in path:
      section = section[part]
    section[last] = value
  return ConfigDict(found, type_safe=False)
