"""What each key of a config may hold. A wrong key, type or range is one line, before anything is compiled.

What hangs on several keys at once is checked where they meet: `experiments.plan`, the settings, the measures.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs.common import PRESETS
from experiments import compiled
from experiments.measures.maps import KINDS
from finetune_wrappers.analysis import pruning
from finetune_wrappers.models.gpt import COMPUTE_DTYPES
from finetune_wrappers.rules import (
  ABOVE_0,
  ANY_WHOLE,
  COUNT,
  FLAG,
  INT32,
  NOT_NEGATIVE,
  SHARE,
  SHARE_ABOVE_0,
  SHARE_BELOW_1,
  SIZE,
  STEPS,
  UINT32,
  Many,
  Rule,
  one_of,
  shown,
  text,
  whole,
)
from finetune_wrappers.tasks import pcfg_tasks, tracr_tasks
from finetune_wrappers.tasks.task import TARGETS
from finetune_wrappers.training.lanes import INNER
from finetune_wrappers.training.methods import TRAINED
from finetune_wrappers.types import InputError, require

_WORD = text("a name of letters, digits and _", r"\w{1,100}")

# Names of the Store's own folders beside those of the experiments.
_STORE = "stages|cohorts|locks|compiled"
_NAME = text(
  "the name of a folder in the workdir: letters, digits, _, - and ., not stages, cohorts, locks or compiled",
  rf"(?!(?:{_STORE})$)(?a:\w)[-.\w]{{0,99}}",
)

MEASURES = {
  "tracr": ("behaviour", "data", "maps", "pruning", "readings"),
  "pcfg": ("behaviour", "data", "jailbreaks", "probes", "pruning"),
}
# The measures whose rows each report reads.
REPORTS = {
  "tracr": {
    "behaviour": ("behaviour", "data"),
    "maps": ("maps",),
    "pruning": ("pruning",),
    "quickstart": ("behaviour", "pruning", "data"),
    "readings": ("readings",),
    "revival": ("behaviour", "data"),
  },
  "pcfg": {
    "jailbreaks": ("jailbreaks", "data"),
    "mixing": ("behaviour", "data"),
    "pcfg_behaviour": ("behaviour", "data"),
    "pcfg_curves": ("behaviour", "data"),
    "pcfg_labels": ("data",),
    "probes": ("probes",),
    "pruning": ("pruning",),
    "revival": ("behaviour", "data"),
  },
}
_ONE = Rule("a tuple of one value", lambda values: len(values) == 1)
_PLAIN = Rule("('ft',)", lambda values: values == ("ft",))
_TRUE = Rule("True", bool)
# What a report cannot tell apart, or cannot do without.
_LIMITS = {
  **{name: {"finetune.targets": _PLAIN} for name in ("behaviour", "maps", "readings")},
  **{name: {"finetune.targets": _PLAIN} for name in ("jailbreaks", "mixing", "pcfg_behaviour", "pcfg_curves")},
  "revival": {"reft.measure": _TRUE},
  "quickstart": {
    "tasks": Rule("('counter',)", lambda values: values == ("counter",)),
    "finetune.targets": _PLAIN,
    "finetune.c_trs": Rule("a tuple with 1.0", lambda values: 1 in values),
    "reft.measure": _TRUE,
    **{key: _ONE for key in ("finetune.learning_rates", "reft.learning_rates", "pruning.units", "pruning.scopes")},
  },
}

_FINETUNE = {
  "learning_rates": Many(ABOVE_0),
  "c_trs": Many(SHARE),
  "targets": Many(one_of(*(target for target in TARGETS if target != "pt"))),  # pt is reFT's
  "curves": FLAG,
}
_REFT = {"measure": FLAG, "c_tr": SHARE, "threshold": SHARE_ABOVE_0, "learning_rates": Many(ABOVE_0)}
_PRUNING = {
  "scores": Many(one_of(*pruning.SCORES, pruning.ITERATIVE)),  # random pruning always runs, with keys of its own
  "scopes": Many(text(f"{', '.join(pruning.SCOPES)} or a path as blocks_1/attn/value/kernel", r"[a-z_0-9/]{1,200}")),
  "units": Many(one_of(*pruning.UNITS)),
  "ks": Many(COUNT),
  "iterative_every": SIZE,
  "single_weights": COUNT,
  "histogram_ks": Many(COUNT, empty=True),
  "batch_size": SIZE,
  "eval_size": SIZE,
  "random_draws": SIZE,
}
_RECIPE = {
  "batch_size": SIZE,
  "final_fraction": SHARE,
  "clip_norm": NOT_NEGATIVE,
  "eval_size": SIZE,
}
_SCHEDULE = {"steps": STEPS, "warmup_steps": whole(0, INT32), "eval_steps": Many(whole(0, INT32))}
_ADAMW = {
  "beta1": SHARE_BELOW_1,
  "beta2": SHARE_BELOW_1,
  "weight_decay": NOT_NEGATIVE,
  "answer_weight": NOT_NEGATIVE,
  "microbatches": SIZE,
}


@dataclasses.dataclass(frozen=True)
class Named:
  """A section whose keys are the config's own."""

  rule: Many


def _common(setting: str, tasks: Iterable[str]) -> dict[str, Any]:
  return {
    "name": _NAME,
    "setting": one_of(*MEASURES),
    "preset": one_of(*PRESETS),
    "measures": Many(one_of(*MEASURES[setting])),
    "report": one_of(*REPORTS[setting]),
    "seeds": Many(whole(0, UINT32)),
    "tasks": Many(one_of(*tasks)),
    "pruning": _PRUNING,
    "lanes_per_program": whole(0, INT32),
    "layout": {"devices": COUNT, "inner": one_of(*INNER)},
    "checkpoint_seconds": NOT_NEGATIVE,
    "compilation_cache": one_of(*compiled.CHOICES),
  }


def _tracr_task(**own: Rule) -> dict[str, Any]:
  task = {"num_letters": whole(2), "vocab_size": whole(2, 26), "num_pads": COUNT, "q": ANY_WHOLE, **own}
  return {"task": task, "noise_std": NOT_NEGATIVE, "microbatches": SIZE}


_STRINGS = Many(text("a string of letters", r"[a-z]+"), empty=True)
_READING = Rule(
  "a (name, key, value) of a reading",
  lambda value: isinstance(value, tuple) and len(value) == 3 and all(isinstance(part, str) for part in value[:2]),
)
_OPTIONAL = ("readings",)

RULES = {
  "tracr": {
    **_common("tracr", tracr_tasks.TASKS),
    "counter": _tracr_task(distinct_answers_in_test=FLAG),
    "max_identifier": _tracr_task(rank_pt=SIZE, rank_ft=SIZE),
    "reading": one_of(*tracr_tasks.READINGS),
    "mlp_exactness": COUNT,
    "training": {
      **_RECIPE,
      **_SCHEDULE,
      "momentum": SHARE_BELOW_1,
      "dampening": SHARE_BELOW_1,
      "trained": one_of(*TRAINED),
      "loss_positions": one_of("answer", "letters"),
      "logit_scale": ABOVE_0,
    },
    "finetune": _FINETUNE,
    "reft": _REFT,
    "maps": {
      "draw": one_of(*KINDS),
      "inputs": {"counter": _STRINGS, "max_identifier": _STRINGS},
      "drawn": whole(1, 100),
      "eval_size": SIZE,
    },
    "readings": Many(_READING, once=False),
  },
  "pcfg": {
    **_common("pcfg", pcfg_tasks.TASKS),
    "text": {
      **{name: SIZE for name in ("window", "counted", "occurrence", "token_place", "farthest")},
      "short": one_of("join", "pad"),
      "spread": SHARE,
      "jailbreaks": FLAG,
      "rules": Many(text("a rule: parent -> child child [probability]", r".+"), empty=True),
    },
    **{name: {"q": SIZE, "distinct_answers_in_test": FLAG} for name in pcfg_tasks.TASKS},
    "model": {
      "blocks": whole(1, 1000),
      "heads": whole(1, 1000),
      "width": whole(1, 2**16),
      "compute_dtype": one_of(*COMPUTE_DTYPES),
    },
    "priors": Named(Many(SHARE, once=False)),
    "pretrain": {
      **_RECIPE,
      **_ADAMW,
      "steps": Many(STEPS),
      "learning_rate": ABOVE_0,
      "control_prior": _WORD,
      "warmup_fraction": SHARE_BELOW_1,
      "eval_fractions": Many(SHARE),
    },
    "training": {**_RECIPE, **_SCHEDULE, **_ADAMW, "loss_positions": one_of("answer", "text")},
    "finetune": {**_FINETUNE, "priors": Many(_WORD), "mixes": Many(SHARE)},
    "reft": {**_REFT, "scratch": FLAG},
    "probes": {
      "prompt": one_of("pt", "ft"),
      "steps": STEPS,
      "batch_size": SIZE,
      "learning_rate": ABOVE_0,
      "drops": Many(whole(1, INT32), empty=True),
      "drop_factor": SHARE_ABOVE_0,
      "weight_decay": NOT_NEGATIVE,
      "eval_size": SIZE,
      "standardise": FLAG,
    },
  },
}


def check(config: ConfigDict) -> None:
  """Raises InputError as `check_keys` does, and for what the config's report cannot tell apart or lacks."""
  setting = setting_of(config)
  check_keys(config)
  needed = REPORTS[setting][config.report]
  lacking = [name for name in needed if name not in config.measures]
  if lacking:
    raise InputError(f"measures: report {config.report!r} reads rows of {', '.join(needed)}; add {', '.join(lacking)}")
  for field, rule in _LIMITS.get(config.report, {}).items():
    value: Any = functools.reduce(getattr, field.split("."), config)
    require(rule.fits(value), field, value, f"{rule.allowed}, as report {config.report!r} needs")


def check_keys(config: ConfigDict) -> None:
  """Raises InputError for a key that is missing or unknown, and for a value that its key cannot hold."""
  setting = setting_of(config)
  _check_section("", config, RULES[setting], setting)


def setting_of(config: ConfigDict) -> str:
  """Which half the config is of.

  Raises:
    InputError: if it is of none.
  """
  setting: Any = config.get("setting")
  one_of(*RULES).check("setting", setting)
  return setting


def _check_section(prefix: str, section: ConfigDict, rules: Mapping[str, Any], setting: str) -> None:
  for name in section:
    if name not in rules:
      known = ", ".join(rules)
      raise InputError(f"{prefix}{name}: is not a key of a config of setting {setting!r}; use one of {known}")
  for name, rule in rules.items():
    field = prefix + name
    if name not in section:
      if name not in _OPTIONAL:
        raise InputError(f"{field}: missing; every config of setting {setting!r} has it")
    elif isinstance(rule, Rule | Many):
      value = section[name]
      rule.check(field, value.to_dict() if isinstance(value, ConfigDict) else value)
    elif not isinstance(section[name], ConfigDict):
      raise InputError(f"{field}: {shown(section[name])} is not a section of keys")
    else:
      inside = {own: rule.rule for own in section[name]} if isinstance(rule, Named) else rule
      _check_section(f"{field}.", section[name], inside, setting)
