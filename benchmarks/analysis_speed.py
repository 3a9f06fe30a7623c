"""CPU time of the analyses of one model at the PCFG quick size, beside what one would write first.

    python -m benchmarks.analysis_speed [--probe_steps=40] [--most=100] [--strings=64] [--turns=3]

* probes: of three places and four kinds of label, 12 in all. First: one after another, in Optax, on the stream that the
  whole model returns.
* pruning curve: neurons by the gradient score, K = 0 to 100 at once; and with the gradient taken anew after each.
  First: a loop over K around a jitted evaluation of the whole model, the order by NumPy.
* attention maps. First: the same GPT with its maps sown, not jitted; PyTorch with explicit attention.

Programs are compiled before the clock starts; sides take turns on one core and have to agree.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from benchmarks.gpts import First, TorchSide, first_params, plan_of
from benchmarks.turns import TURNS, in_turns, rows, setting, torch, use_cores
from finetune_wrappers.analysis import attention, masks
from finetune_wrappers.analysis.linear_probes import ProbeSettings, schedule, train_probes
from finetune_wrappers.models import gpt
from finetune_wrappers.tasks.task import TARGETS
from finetune_wrappers.training.evaluators import Accuracies

_PROBE_STEPS = flags.DEFINE_integer("probe_steps", 40, "Steps of a probe.", lower_bound=1)
_MOST = flags.DEFINE_integer("most", 100, "Largest K.", lower_bound=1)
_STRINGS = flags.DEFINE_integer("strings", 64, "Strings of maps and of a test set.", lower_bound=1)

Call = Callable[[], Any]


class Subject:
  """An untrained model and its task: what an analysis costs does not depend on what was learned."""

  def __init__(self, strings: int):
    plan = plan_of("quick")
    self.task, self.strings, self.config = plan.task, strings, plan.init(0).model
    arrays, facts = gpt.build(self.config, 0)
    self.params, self.model = jax.tree.map(jnp.asarray, arrays["params"]), gpt.restore(facts)
    self.evaluator = Accuracies(strings)
    self.tests = self.evaluator.test_sets(self.task)
    self.tokens, self.labels = self.task.question(self.tests[0], TARGETS.index("pt"))

  def labels_of(self, batch) -> Any:
    """Four kinds, [4, B]."""
    return jnp.stack([batch.labels_pt, batch.labels_ft, batch.tokens[:, 6], batch.tokens[:, 7]])

  @functools.cached_property
  def gradient(self) -> Callable:
    """Of the O_PT answer's loss."""

    def loss(params):
      logits = self.model.answer(params, self.tokens, self.task.answer_position)
      return optax.softmax_cross_entropy_with_integer_labels(logits, self.labels).mean()

    return jax.grad(loss)

  def evaluate(self, params) -> Any:
    """Accuracies [4]."""
    return self.evaluator.measure(self.model, params, self.task, self.tests)

  def whole_model_accuracies(self, params) -> Any:
    """The same from logits at every position."""
    found = []
    for batch in self.tests.values():
      for operand, labels in (("pt", batch.labels_pt), ("ft", batch.labels_ft)):
        tokens, _ = self.task.question(batch, TARGETS.index(operand))
        output: Any = self.model.apply({"params": params}, tokens)
        found.append((output.logits[:, self.task.answer_position].argmax(-1) == labels).mean())
    return jnp.stack(found)


def probes(subject: Subject, steps: int) -> dict[str, Call]:
  """Accuracies [places, kinds]."""
  task, classes, batch = subject.task, subject.task.num_labels, 64
  settings = ProbeSettings(steps=steps, batch_size=batch, learning_rate=1e-2, drops=(), eval_size=2 * batch)

  def features(key, size):
    drawn = task.sample_test(key, size, 0)
    stream = subject.model.apply(
      {"params": subject.params}, drawn.tokens, task.answer_position, method=subject.model.answer_residuals
    )
    return stream, subject.labels_of(drawn)

  ours = jax.jit(lambda key: train_probes(features, settings, classes, key).accuracy)
  optimizer = optax.adamw(schedule(settings), weight_decay=settings.weight_decay, mask={"w": True, "b": False})

  @functools.partial(jax.jit, static_argnums=(1, 2))
  def read(key, place, kind):
    drawn = task.sample_test(key, batch, 0)
    output: Any = subject.model.apply({"params": subject.params}, drawn.tokens)
    embedded = subject.params["token_embed"]["embedding"][drawn.tokens] + subject.params["pos_embed"]["embedding"][:-1]
    stream = (embedded, *output.residuals)[place]
    return stream[:, task.answer_position], subject.labels_of(drawn)[kind]

  @jax.jit
  def update(probe, state, x, labels):
    def loss(probe):
      return optax.softmax_cross_entropy_with_integer_labels(x @ probe["w"] + probe["b"], labels).mean()

    updates, state = optimizer.update(jax.grad(loss)(probe), state, probe)
    return optax.apply_updates(probe, updates), state

  def one(key, place, kind):
    training, testing, _ = jax.random.split(key, 3)
    probe = {"w": jnp.zeros((subject.config.width, classes)), "b": jnp.zeros(classes)}
    state = optimizer.init(probe)
    for i in range(steps):
      probe, state = update(probe, state, *read(jax.random.fold_in(training, i), place, kind))
    right = 0
    for i in range(settings.eval_size // batch):
      x, labels = read(jax.random.fold_in(testing, i), place, kind)
      right += int(((x @ probe["w"] + probe["b"]).argmax(-1) == labels).sum())
    return right / settings.eval_size

  places, kinds, key = subject.config.blocks + 1, 4, jax.random.key(0)
  return {
    "ours": lambda: np.asarray(ours(key)),
    "first": lambda: np.array([[one(key, place, kind) for kind in range(kinds)] for place in range(places)]),
  }


def curve(subject: Subject, most: int, iterative: bool) -> dict[str, Call]:
  """Accuracies [K, 4] with K = 0 to `most` neurons at zero."""

  @jax.jit
  def ours(params):
    scope = masks.scope_mask("blocks", params)
    if iterative:
      places = masks.iterative_ranks(params, subject.gradient, scope=scope, unit="neuron", count=most)
    else:
      scores = masks.weight_scores("gradient", params, grads=subject.gradient(params))
      places = masks.ranks(masks.unit_scores(scores, scope=scope, unit="neuron"), "neuron")
    return masks.curve(params, places=places, ks=jnp.arange(most + 1), measure=subject.evaluate)

  gradient, evaluate = jax.jit(subject.gradient), jax.jit(subject.whole_model_accuracies)

  def first():
    pruned, cut, found = jax.tree.map(np.array, subject.params), set(), [np.asarray(evaluate(subject.params))]
    order = _order(pruned, gradient(pruned), cut)
    for _ in range(most):
      layer, unit = next(neuron for neuron in order if neuron not in cut)
      cut.add((layer, unit))
      for leaf in _layers(pruned)[layer].values():
        leaf[..., unit] = 0.0
      found.append(np.asarray(evaluate(pruned)))  # waited for: JAX may still read what is changed next
      if iterative:
        order = _order(pruned, gradient(pruned), cut)
    return np.stack(found)

  return {"ours": lambda: np.asarray(ours(subject.params)), "first": first}


def _layers(params) -> dict[str, dict]:
  """Linear layers of the blocks by name, in alphabetical order."""
  names = [(f"blocks_{i}", part, name) for i in range(99) for part, name in _PARTS if f"blocks_{i}" in params]
  return {"/".join(path): params[path[0]][path[1]][path[2]] for path in names}


_PARTS = (("attn", "linear"), ("attn", "qkv"), ("mlp", "linear_1"), ("mlp", "linear_2"))


def _order(params, grads, cut: set) -> list[tuple[str, int]]:
  """(layer, unit), the highest sum of w * dL/dw first."""
  scores = {}
  for (name, layer), grad in zip(_layers(params).items(), _layers(grads).values(), strict=True):
    total = sum((leaf * np.asarray(grad[kind])).reshape(-1, leaf.shape[-1]).sum(0) for kind, leaf in layer.items())
    scores |= {(name, unit): score for unit, score in enumerate(np.asarray(total).tolist()) if (name, unit) not in cut}
  return sorted(scores, key=lambda neuron: -scores[neuron])


class _Torch(TorchSide):
  """Keeps its attention maps."""

  def _attend(self, q, k, v):
    scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(self._future, float("-inf"))
    self._maps.append(scores.softmax(-1))
    return self._maps[-1] @ v

  def maps(self) -> np.ndarray:
    self._maps = []
    with torch.no_grad():
      self.logits()
    return np.stack([block.numpy() for block in self._maps])


def maps(subject: Subject) -> dict[str, Call]:
  """Attention maps [blocks, B, H, T, T]."""
  tokens = np.asarray(subject.tokens)
  first, params = First(subject.config), jax.tree.map(jnp.asarray, first_params(subject.params))

  def sown():
    _, kept = first.apply({"params": params}, tokens, mutable=["maps"])
    blocks = [kept["maps"][f"blocks_{i}"]["weights"][0] for i in range(subject.config.blocks)]
    return np.stack(jax.device_get(blocks))

  sides = {"ours": lambda: np.stack(attention.outputs(subject.model, subject.params, tokens).attention), "first": sown}
  if torch is not None:
    host = jax.tree.map(np.array, subject.params)
    sides["torch explicit"] = _Torch(subject.config, host, tokens, np.array(subject.labels), own=False).maps
  return sides


def compare(label: str, sides: dict[str, Call], turns: int, tolerance: float) -> list[str]:
  """Lines of the table, after each side was called once and found the same."""
  found = {name: call() for name, call in sides.items()}
  for name, values in found.items():
    if not np.allclose(values, found["ours"], atol=tolerance):
      raise AssertionError(f"{label}: {name} finds something else, by {np.abs(values - found['ours']).max()}")
  return rows(label, in_turns(sides, turns, seconds=0.5))


def main(_) -> None:
  use_cores(1)
  most, subject = _MOST.value, Subject(_STRINGS.value)
  print(f"{setting()}; {len(subject.tokens)} strings, {_PROBE_STEPS.value} steps of probes")
  print("| analysis | side | CPU time, ms | times ours |\n|---|---|---|---|")
  few = 8 / _STRINGS.value  # answers that rounding may turn
  for label, sides, tolerance in (
    ("probes", probes(subject, _PROBE_STEPS.value), 8 / 128),
    (f"pruning curve, K = 0 to {most}", curve(subject, most, iterative=False), few),
    ("the same, one after another", curve(subject, most, iterative=True), few),
    ("attention maps", maps(subject), 1e-5),
  ):
    print("\n".join(compare(label, sides, TURNS.value, tolerance)), flush=True)


if __name__ == "__main__":
  app.run(main)
