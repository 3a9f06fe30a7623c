"""What each config costs at :paper, in lanes, steps and FLOPs of training. Nothing is trained.

python -m benchmarks.paper_costs --models=runs

FLOPs are XLA's count for one batch's loss and gradient, before it optimises, times steps and lanes; stages that several
figures share count for each of them. Compiled models come from the workdir, or are compiled for this (minutes).
"""

import importlib
import pathlib

from absl import app, flags, logging

from experiments import dry_run, runner
from finetune_wrappers.training.schedule import identity_of, steps_of
from finetune_wrappers.training.stages import TrainStage, ancestors, model_after, params_like, root_of
from finetune_wrappers.training.store import Store

_MODELS = flags.DEFINE_string("models", "runs", "A workdir in which compiled models may lie.")


def main(_) -> None:
  logging.set_verbosity(logging.WARNING)  # Orbax tells every file it reads
  store = Store(_MODELS.value)
  flops: dict[str, float] = {}
  print("| config | lanes | lane-steps | FLOPs |\n|---|---|---|---|")
  for path in sorted(pathlib.Path("configs").glob("*.py")):
    if not path.stem.endswith(("__init__", "common")):
      print(_row(path.stem, store, flops), flush=True)


def _row(name: str, store: Store, flops: dict[str, float]) -> str:
  planned = runner.plan_of(importlib.import_module(f"configs.{name}").get_config("paper"))
  roots = dry_run.Roots(store, planned.plans[0])
  wanted = {s.key: s for stage in planned.stages for s in ancestors(stage)}
  lanes = [stage for stage in wanted.values() if isinstance(stage, TrainStage)]
  for stage in lanes:
    if identity_of(stage) not in flops:
      model, params = roots(root_of(stage))
      parent = model_after(stage.parent, model), params_like(stage.parent, params)
      flops[identity_of(stage)] = dry_run.flops_of(stage, *parent)
  steps = sum(map(steps_of, lanes))
  total = sum(flops[identity_of(stage)] * steps_of(stage) for stage in lanes)
  return f"| {name} | {len(lanes)} | {steps:.3g} | {total:.2e} |"


if __name__ == "__main__":
  app.run(main)
