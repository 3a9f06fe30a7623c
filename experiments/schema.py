"""What each key of a config may hold. A wrong key, type or range is one line, before anything is compiled.

Keys that depend on each other are checked where they meet: `experiments.plan`, the settings, the measures.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs.common import PRESETS
from experiments import compiled
from experiments.registry import registered
from finetune_wrappers.analysis import ProbeSettings, PruneSettings
from finetune_wrappers.rules import (
  ABOVE_0,
  COUNT,
  FLAG,
  INT32,
  NOT_NEGATIVE,
  SEED,
  SHARE,
  SHARE_ABOVE_0,
  Many,
  one_of,
  rules_of,
  shown,
  text,
  whole,
)
from finetune_wrappers.tasks.task import TARGETS
from finetune_wrappers.training.lanes import INNER
from finetune_wrappers.training.store import FOLDERS
from finetune_wrappers.types import InputError, require


@dataclasses.dataclass(frozen=True)
class Named:
  """A section whose keys are the config's own."""

  rule: Many


@dataclasses.dataclass(frozen=True)
class Optional:
  """A key that a config may lack."""

  rule: Many

  def check(self, field: str, value: Any) -> None:
    """Raises InputError unless the value fits."""
    self.rule.check(field, value)


def section(kind: type, *, but: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
  """The rules of a section from which a dataclass is made.

  Args:
    kind: a dataclass with rules beside its fields.
    but: fields that no config sets.
    **more: keys that only configs have.
  """
  return {**{name: rule for name, rule in rules_of(kind).items() if name not in but}, **more}


DATA = "data"  # folder in the workdir for what tasks keep beside models
_TAKEN = (*FOLDERS, compiled.FOLDER, DATA)  # beside those of the experiments
_NAME = text(
  f"the name of a folder in the workdir: letters, digits, _, - and ., not {', '.join(_TAKEN)}",
  rf"(?!(?i:{'|'.join(_TAKEN)})$)(?a:\w)[-.\w]{{0,99}}",  # some file systems take Stages for stages
)
WORD = text("a name of letters, digits and _", r"\w{1,100}")
FINETUNE = {
  "learning_rates": Many(ABOVE_0),
  "c_trs": Many(SHARE),
  "targets": Many(one_of(*(target for target in TARGETS if target != "pt"))),  # pt is reFT's
  "curves": FLAG,
}
REFT = {"measure": FLAG, "c_tr": SHARE, "threshold": SHARE_ABOVE_0, "learning_rates": Many(ABOVE_0)}
# Of tasks whose strings have one answer for each operand; a setting may replace them.
ANSWERS = {
  "finetune": FINETUNE,
  "reft": REFT,
  "pruning": section(PruneSettings, but=("neuron_axes",)),  # our models have matrices of two axes
  "probes": section(ProbeSettings),
}
# Every config's.
SHARED = {
  "name": _NAME,
  "preset": one_of(*PRESETS),
  "seeds": Many(SEED),
  "lanes_per_program": whole(0, INT32),
  "layout": {"devices": COUNT, "inner": one_of(*INNER)},
  "checkpoint_seconds": NOT_NEGATIVE,
  "compilation_cache": one_of(*compiled.CHOICES),
}


def check(config: ConfigDict) -> None:
  """Raises InputError as `check_keys` does, and for what the config's report cannot tell apart or lacks."""
  check_keys(config)
  report = registered("experiments.reports", "REPORT")[config.report]
  lacking = [name for name in report.reads if name not in config.measures]
  if lacking:
    read = ", ".join(report.reads)
    raise InputError(f"measures: report {config.report!r} reads rows of {read}; add {', '.join(lacking)}")
  for field, rule in report.limits.items():
    value = value_at(config, field)
    require(rule.fits(value), field, value, f"{rule.allowed}, as report {config.report!r} needs")


def check_keys(config: ConfigDict) -> None:
  """Raises InputError for a key that is missing or unknown, and for a value that its key cannot hold."""
  setting = setting_of(config)
  own = {**SHARED, **setting.schema}
  measures = {name: found for name, found in registered("experiments.measures", "MEASURE").items() if _has(own, found)}
  reports = {name: found for name, found in registered("experiments.reports", "REPORT").items() if _has(own, found)}
  choices = {
    "setting": one_of(config.setting),
    "tasks": Many(one_of(*setting.tasks)),
    "measures": Many(one_of(*measures)),
    "report": one_of(*(name for name, found in reports.items() if measures.keys() >= {*found.reads})),
  }
  _check_section("", config.to_dict(), {**choices, **own}, config.setting)


def setting_of(config: ConfigDict) -> Any:
  """What the config's setting registers, an `experiments.settings.Setting`.

  Raises:
    InputError: if there is no such setting.
  """
  settings = registered("experiments.settings", "SETTING")
  one_of(*settings).check("setting", config.to_dict().get("setting"))
  return settings[config.setting]


def value_at(config: ConfigDict, key: str) -> Any:
  """The value of a dotted key."""
  return functools.reduce(lambda section, name: section[name], key.split("."), config)


def _has(rules: Mapping[str, Any], wanted: Any) -> bool:
  """Whether a schema has every key that a measure or report needs."""

  def known(key: str) -> bool:
    *path, last = key.split(".")
    return last in functools.reduce(lambda section, name: section.get(name, {}), path, rules)

  return all(map(known, wanted.needs))


def _check_section(prefix: str, section: Mapping[str, Any], rules: Mapping[str, Any], setting: str) -> None:
  for name in section:
    if name not in rules:
      known = ", ".join(rules)
      raise InputError(f"{prefix}{name}: is not a key of a config of setting {setting!r}; use one of {known}")
  for name, rule in rules.items():
    field = prefix + name
    if name not in section:
      if not isinstance(rule, Optional):
        raise InputError(f"{field}: missing; every config of setting {setting!r} has it")
    elif not isinstance(rule, Mapping | Named):
      rule.check(field, section[name])
    elif not isinstance(section[name], Mapping):
      raise InputError(f"{field}: {shown(section[name])} is not a section of keys")
    else:
      inside = {own: rule.rule for own in section[name]} if isinstance(rule, Named) else rule
      _check_section(f"{field}.", section[name], inside, setting)
