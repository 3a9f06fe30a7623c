"""A model of results/models, loaded without training: its answers and accuracies; and two runs of results/ compared."""

import pathlib
import tarfile
import tempfile

import numpy as np

import finetune_wrappers as fw
from configs import tab03_behaviour
from experiments.models import Models
from experiments.plan import plans

results = pathlib.Path("results")
_, plan = plans(tab03_behaviour.get_config("paper"))  # of Counter and of Max-identifier: every model of Table 3
wanted = {"learning_rate": 0.1, "c_tr": 1.0}
(stage,) = [s for s in plan.finetunes() if s.seed == 0 and wanted.items() <= plan.swept(s).items()]
with tempfile.TemporaryDirectory() as workdir:  # or once into a workdir of yours: tar xzf FILE -C runs
  with tarfile.open(results / "models" / "tracr_paper.tar.gz") as archive:
    archive.extractall(workdir, filter="data")
  trained = Models(fw.Store(workdir), plan).load(stage)  # .model, .params, .labels, .metrics, ...

task, evaluator = plan.task, plan.evaluator
tests = evaluator.test_sets(task)
accuracies = evaluator.measure(trained.model, trained.params, task, tests)
for metric, value in zip(evaluator.metrics(task), accuracies, strict=True):
  print(metric.name, dict(metric.fields), f"{100 * value:.1f} %")
with trained.model.numerics():  # compiled models count only at the highest matmul precision
  logits = trained.model.answer(trained.params, tests[1].tokens[:3], task.answer_position)
strings = np.array(task.symbols)[np.asarray(tests[1].tokens[:3])]  # of a compiled program of yours: codec.decode(ids)
answers = [trained.labels[i] for i in np.asarray(logits).argmax(-1)]
print("strings and answers:", *zip(map(" ".join, strings), answers, strict=True), sep="\n")

names = ("max_identifier", "max_identifier_averaged")
run, base = (fw.read_rows(results / "tab03" / name / "rows.jsonl") for name in names)
compared = fw.compare_runs(run=run, base=base)
print(f"{len(compared.cells)} cells are in both runs; of all those at η_L, C_Tr = 1, at the end:")
for cell in compared.cells:
  if (wanted | {"stage": "finetune", "step": 10_000}).items() <= cell.fields.items():
    print(cell.fields["metric"], cell.fields.get("c_te", ""), f"{cell.run.mean:.3f} {cell.base.mean:.3f}")
