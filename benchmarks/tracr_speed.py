"""Steps per second of one fine-tuning lane, beside what one would write first; and the time to a first step.

    python -m benchmarks.tracr_speed [--seconds=20] [--tasks=counter,max_identifier] [--lane_cores=1]

"First" is the compiled Haiku model, a jitted optax step called from a Python loop and batches made in NumPy, at the
same batch size, clip, momentum and schedule, float32 at highest matmul precision. Both sides are timed in turns, on one
device, and the ratio is of their medians: on a shared machine the two numbers move, their ratio hardly. A run gives
every core a lane of its own, so the sides have one core; with a second, "first" draws its strings beside the training.
"""

import dataclasses
import statistics
import time
from typing import Any

import jax
import numpy as np
import optax
from absl import app, flags

from benchmarks.turns import use_cores
from configs import tracr_common
from experiments.settings.tracr import TracrPlan
from finetune_wrappers.models import tracr_compile, tracr_stage
from finetune_wrappers.training.cohort import Cohort, lane_arrays
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.stages import TrainStage

_SECONDS = flags.DEFINE_float("seconds", 20.0, "Time for each side of each task.", lower_bound=0.1)
_TASKS = flags.DEFINE_list("tasks", ["counter", "max_identifier"], "Which tasks.")
_CORES = flags.DEFINE_integer("lane_cores", 1, "Cores for each side, in its turn; 0: all.", lower_bound=0)
_TURNS = 5
_RATE, _C_TR = 1e-2, 0.5


class First:
  """The compiled Haiku model, trained as one would first write it."""

  def __init__(self, plan: TracrPlan, stage: TrainStage, model):
    ours: Any = stage.optimizer
    self._task, self._model, self._batch_size = plan.task, model, ours.batch_size
    program = plan.task.program("pt")
    assembled = tracr_compile.compile_program(program, vocab=set(plan.task.letters), max_seq_len=plan.task.max_seq_len)
    self._rng = np.random.default_rng(0)
    self._params = jax.tree.map(jax.numpy.asarray, assembled.params)
    shape = ours.schedule()
    optimizer = optax.chain(
      optax.clip_by_global_norm(ours.clip_norm), optax.sgd(lambda i: _RATE * shape(i), momentum=ours.momentum)
    )
    self._state = optimizer.init(self._params)
    channels = np.argmax(tracr_compile.unembedding(assembled), axis=0)

    def loss(params, tokens, target):
      residual = assembled.forward(params, tokens).transformer_output.output
      logits = residual[:, plan.task.answer_position, channels]
      return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()

    @jax.jit
    def update(params, state, tokens, target):
      value, grads = jax.value_and_grad(loss)(params, tokens, target)
      updates, state = optimizer.update(grads, state)
      return optax.apply_updates(params, updates), state, value

    self._update = update

  def run(self, steps: int) -> None:
    """Trains that many steps and waits for the last."""
    with self._model.numerics():
      for _ in range(steps):
        tokens, target = numpy_batch(self._task, self._batch_size, _C_TR, self._rng)
        self._params, self._state, value = self._update(self._params, self._state, tokens, target)
    jax.block_until_ready((self._params, value))


class Ours:
  """One lane of a cohort."""

  def __init__(self, stage: TrainStage, model, params):
    self._cohort = Cohort(model, stage.recipe, Layout(1, "map"))
    lane = lane_arrays([stage.lane])
    self._state = self._cohort.init([params], lane)
    self._lane = self._cohort.layout.lay_out(lane)

  def run(self, steps: int) -> None:
    """Trains that many steps and waits for the last; the evaluation that ends them is of one string."""
    self._state, measured = self._cohort.advance(self._state, self._lane, start=0, stop=steps, since=0)
    jax.block_until_ready((self._state, measured))


def numpy_batch(task, size: int, c_tr: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Token ids [B, T] and O_FT answers [B] by rejection from random strings, as one would first write it."""
  wanted = rng.random(size) < c_tr
  rows = np.zeros((size, task.num_letters), int)
  answers = np.zeros((size, 2), int)
  missing = np.arange(size)
  while len(missing):
    letters, found = _random_strings(task, len(missing) * 8, rng)
    carries = found[:, 1] - found[:, 0] == task.q
    for value in (True, False):
      need = missing[wanted[missing] == value]
      have = np.flatnonzero(carries == value)[: len(need)]
      rows[need[: len(have)]], answers[need[: len(have)]] = letters[have], found[have]
      missing = np.setdiff1d(missing, need[: len(have)])
  ids = np.array([task.symbols.index(letter) for letter in task.letters])
  bos = np.full((size, 1), task.symbols.index(tracr_compile.BOS))
  pad = np.full((size, task.num_pads), task.symbols.index(tracr_compile.PAD))
  return np.concatenate([bos, ids[rows], pad], axis=1).astype(np.int32), answers[:, 1].astype(np.int32)


def _random_strings(task, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Letters [N, L] and both answers [N, 2]."""
  if task.name == "counter":
    letters = rng.integers(0, task.vocab_size, (number, task.num_letters))
    return letters, np.stack([(letters == 0).sum(1), (letters == 1).sum(1)], axis=1)
  letters = rng.random((number, task.vocab_size)).argsort(axis=1)[:, : task.num_letters]
  return letters, np.sort(letters, axis=1)[:, [task.rank_pt - 1, task.rank_ft - 1]]


def steps_per_second(side, seconds: float) -> float:
  """Of one turn, after a first measurement that says how many steps fit."""
  begin = time.perf_counter()
  side.run(3)
  number = max(3, int(3 * seconds / (time.perf_counter() - begin)))
  begin = time.perf_counter()
  side.run(number)
  return number / (time.perf_counter() - begin)


def measure(task_name: str, seconds: float) -> str:
  """A line of the table."""
  plan = TracrPlan(tracr_common.tracr_config("speed", "paper", measures=(), report=""), task_name)
  begin = time.perf_counter()
  arrays, facts = tracr_stage.build(plan.task, operand="pt", reading="literal", mlp_exactness=0)
  built = time.perf_counter() - begin
  stage = plan.finetunes()[0]
  objective = dataclasses.replace(stage.objective, target="ft", c_tr=_C_TR)
  stage = dataclasses.replace(stage, objective=objective, evaluator=Accuracies(1), learning_rate=_RATE)
  model = tracr_stage.restore(facts)
  ours = Ours(stage, model, arrays["params"])
  ours.run(1)
  to_first_step = time.perf_counter() - begin
  first = First(plan, stage, model)
  first.run(1)
  rates = {"ours": [], "first": []}
  for _ in range(_TURNS):
    rates["first"].append(steps_per_second(first, seconds / _TURNS))
    rates["ours"].append(steps_per_second(ours, seconds / _TURNS))
  medians = {name: statistics.median(values) for name, values in rates.items()}
  spread = {name: f"{min(values):.1f} to {max(values):.1f}" for name, values in rates.items()}
  return (
    f"| {task_name} | {medians['first']:.1f} ({spread['first']}) | {medians['ours']:.1f} ({spread['ours']}) | "
    f"{medians['ours'] / medians['first']:.2f} | {built:.1f} | {to_first_step:.1f} |"
  )


def main(_) -> None:
  cores = use_cores(_CORES.value)
  device = jax.local_devices()[0]
  print(f"jax {jax.__version__}, {device.device_kind}, one device, cores: {cores}; lr {_RATE}, C_Tr {_C_TR}, batch 96")
  print("| task | first version, steps/s | ours, steps/s | ratio | compile + port, s | to the first step, s |")
  print("|---|---|---|---|---|---|")
  for task_name in _TASKS.value:
    print(measure(task_name, _SECONDS.value), flush=True)


if __name__ == "__main__":
  app.run(main)
