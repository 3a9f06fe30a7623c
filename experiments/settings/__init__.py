"""Settings: families of models and tasks. Each module registers one as SETTING; the module's name is the setting's."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.plan import Plan


@dataclasses.dataclass(frozen=True)
class Setting:
  """What a setting registers.

  Its configs may use every measure and report whose needs its schema meets.

  Attributes:
    schema: rules of its config's own keys and sections, beside `experiments.schema.SHARED`.
    plan: from a config and a task's name to stages.
    tasks: each task's name to how reports write it.
    rates: the paper's names of learning rates; it uses the same names for other values elsewhere.
  """

  schema: Mapping[str, Any]
  plan: type[Plan]
  tasks: Mapping[str, str]
  rates: Mapping[float, str]
