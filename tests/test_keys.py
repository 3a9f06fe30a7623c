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
  never = plan.negatives() if plan.config.setting in ("pcfg", "stories") else []
  return [stage.key for stage in (*plan.bases(), *plan.finetunes(), *plan.refts(), *plan.controls(), *never)]


def test_every_config_is_pinned():
  assert {name.split(":")[0] for name in PINNED} == CONFIGS and len(CONFIGS) == 29


@pytest.mark.parametrize("config", sorted(CONFIGS))
def test_keys_of_stages_stay(config, tmp_path):
  found = {}
  for preset in ("smoke", "quick", "paper"):
    values = importlib.import_module(f"configs.{config}").get_config(preset)
    if "files" in values and preset == "paper":  # stories of which there is no number are read from files
      with values.unlocked():
        values.files.update({name: (str(tmp_path / f"{name}.txt"),) for name in ("train", "valid")})
      for name in ("train", "valid"):
        (tmp_path / f"{name}.txt").write_text(f"Story:\n{name}\n<|endoftext|>\n")
    for plan in plans(values):
      keys = keys_of(plan)
      digits = hashlib.sha256(" ".join(keys).encode()).hexdigest()[:12]
      found[f"{config}:{preset}:{plan.task_name}"] = [len(keys), digits]
  assert found == {name: value for name, value in PINNED.items() if name.split(":")[0] == config}
