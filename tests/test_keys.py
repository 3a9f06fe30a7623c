"""Keys of stages: models that are stored already are found again, for every config that the repository has."""

import hashlib
import importlib
import json
import pathlib

import pytest

from experiments.plan import plans

HERE = pathlib.Path(__file__).parent
CONFIGS = {path.stem for path in (HERE.parent / "configs").glob("*.py") if "get_config(" in path.read_text()}
# config:preset:task to (number of stages, 12 hexadecimal digits); written down before stages were made of parts.
PINNED = json.loads((HERE / "stage_keys.json").read_text())


def keys_of(plan):
  """Of every stage that the plan trains or begins from, in the order of the plan."""
  never = plan.negatives() if plan.config.setting == "pcfg" else []
  return [stage.key for stage in (*plan.bases(), *plan.finetunes(), *plan.refts(), *plan.controls(), *never)]


def test_every_config_is_pinned():
  assert {name.split(":")[0] for name in PINNED} == CONFIGS and len(CONFIGS) == 25


@pytest.mark.parametrize("config", sorted(CONFIGS))
def test_keys_of_stages_stay(config):
  found = {}
  for preset in ("smoke", "quick", "paper"):
    for plan in plans(importlib.import_module(f"configs.{config}").get_config(preset)):
      keys = keys_of(plan)
      digits = hashlib.sha256(" ".join(keys).encode()).hexdigest()[:12]
      found[f"{config}:{preset}:{plan.task_name}"] = [len(keys), digits]
  assert found == {name: value for name, value in PINNED.items() if name.split(":")[0] == config}
