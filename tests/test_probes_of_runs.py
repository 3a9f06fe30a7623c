"""Probes in a run of the Tracr setting: compiled, fine-tuned and never-had models have rows by block."""

import json

from configs import tab03_behaviour
from experiments import runner


def test_probes_of_a_tracr_run_have_rows_by_block_for_every_kind_of_model(tmp_path):
  config = tab03_behaviour.get_config("smoke")
  config.unlock()
  config.tasks, config.measures = ("counter",), ("behaviour", "probes", "data")
  runner.run(config, str(tmp_path))
  lines = next(tmp_path.rglob("rows.jsonl")).read_text().splitlines()
  probed = [row for row in map(json.loads, lines) if row["metric"] == "acc_probe"]
  finetunes = len(config.seeds) * len(config.finetune.learning_rates) * len(config.finetune.c_trs)
  models = {"compile": 1, "finetune": finetunes, "never": 1}
  reads = ("pt", "ft", "control_pt", "control_ft")
  for model, count in models.items():
    found = [(row["block"], row["reads"]) for row in probed if row["model"] == model]
    assert sorted(found) == sorted([(block, read) for block in range(4) for read in reads] * count)
  assert len(probed) == sum(models.values()) * 4 * len(reads)
  assert all(0 <= row["value"] <= 1 for row in probed)
