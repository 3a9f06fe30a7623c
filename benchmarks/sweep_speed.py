"""A sweep of 12 fine-tunings at the PCFG quick size, ours as lanes beside PyTorch minGPT one run after another.

    python -m benchmarks.sweep_speed [--cores=1,0] [--steps=50] [--turns=3]

Ours is the real Trainer with its store: it draws the strings, trains, answers the test sets twice and writes every run
to disk. PyTorch (SDPA) trains 4 learning rates x 3 seeds in a Python loop by the same recipe and answers the same test
sets; its strings are given to it, drawn beforehand, and it has one thread or all, whichever is faster. In the first
turn both have to find the same losses. That turn compiles and chooses a layout; it stands apart. Each number of cores
(0: all) has a process of its own. On one core CPU time counts; what more cores are good for shows on the clock only,
which on a shared machine is worth less.
"""

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from benchmarks.gpts import TorchSide, plan_of
from benchmarks.turns import TURNS, setting, torch, use_cores
from finetune_wrappers.models import gpt
from finetune_wrappers.tasks.task import TARGETS
from finetune_wrappers.training.loop import Trainer
from finetune_wrappers.training.stages import TrainStage
from finetune_wrappers.training.store import Store
from finetune_wrappers.training.swept import shared, with_values

_CORES = flags.DEFINE_list("cores", ["1", "0"], "Numbers of cores, 0 for all; each in a process of its own.")
_STEPS = flags.DEFINE_integer("steps", 50, "Steps of a run.", lower_bound=4)
_RATES = (1e-3, 3e-4, 1e-4, 3e-5)
_SEEDS = 3


def sweep(plan, steps: int, turn: int) -> list[TrainStage]:
  """12 runs that no turn before had, all from untrained weights: what training costs does not depend on them."""
  one = plan.finetunes()[0]
  evaluated = (steps // 2, steps)
  optimizer = dataclasses.replace(one.optimizer, steps=steps, warmup_steps=steps // 5, eval_steps=evaluated)
  objective = dataclasses.replace(one.objective, c_tr=1.0)
  one = dataclasses.replace(one, parent=plan.init(0), objective=objective, optimizer=optimizer)
  seeds = range(turn * _SEEDS, (turn + 1) * _SEEDS)
  return [dataclasses.replace(one, learning_rate=rate, seed=seed) for rate in _RATES for seed in seeds]


class Ours:
  """The Trainer; kept between turns, as between the stages of an experiment."""

  def __init__(self, plan, workdir: str):
    self._store = Store(workdir)
    self._trainer = Trainer(self._store, build=plan.build, model_of=plan.restore)

  def run(self, stages: list[TrainStage]) -> list[float]:
    """Mean training loss of every run's second half."""
    self._trainer.run(stages)
    return [float(self._store.load(stage)[0]["losses"][-1]) for stage in stages]

  def layout(self, stage: TrainStage) -> str:
    """How the lanes were laid out."""
    chosen = self._store.facts(stage)["layout"]
    return f"{chosen['devices']} x {chosen['inner']}"


class TorchRun(TorchSide):
  """One run of PyTorch minGPT by `AdamW`'s recipe."""

  def __init__(self, model: gpt.GPTConfig, params: dict, batches, stage: TrainStage):
    tokens, labels = batches
    super().__init__(model, params, tokens[0], labels[0], own=True)
    ours: Any = stage.optimizer
    decayed = [p for name, p in self._params.items() if name.endswith("kernel")]
    others = [p for name, p in self._params.items() if not name.endswith("kernel")]
    groups = [{"params": decayed, "weight_decay": ours.weight_decay}, {"params": others, "weight_decay": 0.0}]
    self._optimizer = torch.optim.AdamW(groups, betas=(ours.beta1, ours.beta2), fused=True)
    self._data = torch.tensor(tokens).long(), torch.tensor(labels).long()
    shape = ours.schedule()
    self._rates = [float(stage.learning_rate * shape(i)) for i in range(ours.steps)]
    self._clip, self.eval_steps = ours.clip_norm, ours.eval_steps

  def train(self, start: int, stop: int) -> float:
    """Mean training loss of those steps."""
    total = 0.0
    for rate, tokens, targets in [*zip(self._rates, *self._data, strict=True)][start:stop]:
      self._tokens, self._targets = tokens, targets
      for group in self._optimizer.param_groups:
        group["lr"] = rate
      loss = torch.nn.functional.cross_entropy(self.logits(), self._targets)
      self._optimizer.zero_grad(set_to_none=True)
      loss.backward()
      torch.nn.utils.clip_grad_norm_(self._params.values(), self._clip)
      self._optimizer.step()
      total += loss.item()
    return total / (stop - start)

  def accuracy(self, tokens, labels) -> float:
    """Share of right answers."""
    self._tokens, self._targets = tokens, labels
    with torch.no_grad():
      return (self.logits().argmax(-1) == labels).float().mean().item()


class Torch:
  """PyTorch's runs, one after another."""

  def __init__(self, plan):
    self._model, self._task = plan.init(0).model, plan.task
    self._params = gpt.build(self._model, 0)[0]["params"]
    questions = [
      self._task.question(batch, TARGETS.index(operand))
      for batch in plan.finetunes()[0].evaluator.test_sets(self._task).values()
      for operand in ("pt", "ft")
    ]
    self._tests = [tuple(torch.tensor(np.asarray(x)).long() for x in question) for question in questions]
    self._draw = jax.jit(self._batches, static_argnums=(0, 1))
    self._runs: list[TorchRun] = []

  def choose_threads(self, most: int) -> None:
    """More threads than one can be slower on matrices this small."""
    seconds = {}
    for threads in {1, most}:
      torch.set_num_threads(threads)
      seconds[threads] = min(timed(lambda: self._runs[0].accuracy(*self._tests[0]))[2] for _ in range(5))
    torch.set_num_threads(min(seconds, key=lambda threads: seconds[threads]))

  def _batches(self, objective, optimizer, lane) -> Any:
    key, objective = jax.random.key(lane["stream"]), with_values(objective, lane)

    def draw(i):
      return objective.draw(self._task, jax.random.fold_in(key, i + 1), optimizer.batch_size)

    return jax.lax.map(draw, np.arange(optimizer.steps))

  def prepare(self, stages: list[TrainStage]) -> None:
    """Draws the strings of the next turn, the same as ours."""
    self._runs = []
    for stage in stages:
      batches = jax.device_get(self._draw(shared(stage.objective), stage.optimizer, stage.lane))
      self._runs.append(TorchRun(self._model, self._params, batches, stage))

  def run(self) -> list[float]:
    """Mean training loss of every run's second half."""
    return [self._train(run) for run in self._runs]

  def _train(self, run: TorchRun) -> float:
    start, loss = 0, 0.0
    for stop in run.eval_steps:
      start, loss = stop, run.train(start, stop)
      for test in self._tests:
        run.accuracy(*test)
    return loss


def timed(call) -> tuple[Any, float, float]:
  """(result, CPU time, time on the clock)."""
  cpu, clock = time.process_time(), time.perf_counter()
  result = call()
  return result, time.process_time() - cpu, time.perf_counter() - clock


def measure(steps: int, turns: int) -> list[str]:
  """Lines of the table."""
  plan = plan_of("quick")
  times: dict[str, list[tuple[float, float]]] = {}
  with tempfile.TemporaryDirectory() as workdir:
    ours, theirs = Ours(plan, workdir), torch and Torch(plan)
    for turn in range(turns + 1):
      stages = sweep(plan, steps, turn)
      own, *spent = timed(lambda stages=stages: ours.run(stages))
      times.setdefault("ours, first sweep" if turn == 0 else "ours", []).append(tuple(spent))
      if theirs:
        theirs.prepare(stages)
        if turn == 0:
          theirs.choose_threads(jax.local_device_count())
        other, *spent = timed(theirs.run)
        if turn:
          times.setdefault("torch", []).append(tuple(spent))
        elif not np.allclose(own, other, rtol=2e-3):
          raise AssertionError(f"the sides do not train the same models: {own}, {other}")
    return _rows(times, len(stages) * steps, ours.layout(stages[0]))


def _rows(times: dict[str, list[tuple[float, float]]], lane_steps: int, layout: str) -> list[str]:
  medians = {name: [statistics.median(spent) for spent in zip(*values, strict=True)] for name, values in times.items()}
  cpu_ours, clock_ours = medians["ours"]
  return [
    f"| {name}{f' ({layout})' if name == 'ours' else ''} | {lane_steps / clock:.1f} | {1e3 * cpu / lane_steps:.1f} "
    f"| {cpu / cpu_ours:.3g} | {clock / clock_ours:.3g} |"
    for name, (cpu, clock) in medians.items()
  ]


def main(_) -> None:
  if len(_CORES.value) > 1:
    for cores in _CORES.value:
      subprocess.run([sys.executable, "-m", "benchmarks.sweep_speed", *sys.argv[1:], f"--cores={cores}"], check=True)
    return
  logging.set_verbosity(logging.WARNING)  # Orbax tells every file it reads
  use_cores(int(_CORES.value[0]))
  print(f"{setting()}; {len(_RATES) * _SEEDS} runs of {_STEPS.value} steps")
  print("| side | lane-steps/s | CPU time of a lane-step, ms | CPU time, times ours | clock, times ours |")
  print("|---|---|---|---|---|")
  print("\n".join(measure(_STEPS.value, TURNS.value)), flush=True)


if __name__ == "__main__":
  app.run(main)
