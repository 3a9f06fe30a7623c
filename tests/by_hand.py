"""Training written out in NumPy, beside which the tests put the package's."""

import jax
import numpy as np
from flax import traverse_util
from tiny import sample, task_with

# Six strings, the same at every step of SAME_BATCH.
BATCH = jax.tree.map(np.asarray, sample(jax.random.key(7), 6, 0.5))
SAME_BATCH = task_with(lambda key, batch_size, c_tr: BATCH)


def flat(tree):
  """Leaves by path, such as `blocks_0/attn/key/kernel`."""
  return {"/".join(path): np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(tree).items()}


def nested(leaves):
  return traverse_util.unflatten_dict(leaves, sep="/")


def share_of_the_rate(i, steps, warmup, final):
  if i < warmup:
    return i / warmup
  return final + (1 - final) * (1 + np.cos(np.pi * (i - warmup) / (steps - warmup))) / 2


def norm(leaves):
  return np.sqrt(sum(np.square(leaf).sum() for leaf in leaves.values()))


def directions(gradients, clip, momentum, dampening=0.0):
  """What SGD with momentum steps along after each of the gradients."""
  total = {name: 0.0 for name in gradients[0]}
  for gradient in gradients:
    shrink = min(1.0, clip / norm(gradient)) if clip else 1.0
    total = {name: (1 - dampening) * shrink * leaf + momentum * total[name] for name, leaf in gradient.items()}
    yield total


def trained_by_sgd(loss, leaves, optimizer, rate, steps):
  """(leaves by name, training losses) after so many steps of SGD on loss({name: leaf}, step)."""
  loss_and_gradient, losses, gradients = jax.jit(jax.value_and_grad(loss)), [], []
  for i in range(steps):
    value, gradient = loss_and_gradient(leaves, i)
    losses.append(float(value))
    gradients.append({name: np.asarray(leaf) for name, leaf in gradient.items()})
    *_, direction = directions(gradients, optimizer.clip_norm, optimizer.momentum)
    now = rate * share_of_the_rate(i, optimizer.steps, optimizer.warmup_steps, optimizer.final_fraction)
    leaves = {name: leaf - np.float32(now) * direction[name] for name, leaf in leaves.items()}
  return leaves, losses


def assert_close(got, expected, rtol=2e-5):
  assert got.keys() == expected.keys()
  for name, leaf in expected.items():
    np.testing.assert_allclose(got[name], leaf, rtol=rtol, atol=rtol * np.abs(leaf).max() + 1e-9, err_msg=name)
