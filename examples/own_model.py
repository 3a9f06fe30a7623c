"""Models of your own, in plain JAX and in Flax: probed, pruned against random, and revived against a control."""

import flax.linen as nn
import jax
import numpy as np

import finetune_wrappers as fw

task = fw.FunctionTask(  # strings of 10 a's, b's and c's; O_PT counts the a's and O_FT the b's
  lambda key, batch_size, c_tr: jax.random.randint(key, (batch_size, 10), 0, 3),
  lambda tokens: ((tokens == 0).sum(axis=1), (tokens == 1).sum(axis=1)),
  name="letters", length=10, num_labels=11, answer_position=0)  # fmt: skip


def plain(params, tokens):
  stream = jax.nn.relu(jax.nn.one_hot(tokens, 3).sum(axis=1, keepdims=True) @ params["in"]["kernel"])
  return fw.ModelOutput(stream @ params["out"]["kernel"], residuals=(stream,))


class Perceptron(nn.Module):
  @nn.compact
  def __call__(self, tokens):
    stream = nn.relu(nn.Dense(64)(jax.nn.one_hot(tokens, 3).sum(axis=1, keepdims=True)))
    return fw.ModelOutput(nn.Dense(11)(stream), residuals=(stream,))


drawn = {n: {"kernel": np.random.default_rng(0).normal(size=s) / 4} for n, s in (("in", (3, 64)), ("out", (64, 11)))}
flax_drawn = Perceptron().init(jax.random.key(0), np.zeros((1, 10), int))["params"]
recipe = {"optimizer": fw.AdamW.paper(800, eval_every=20), "learning_rate": 3e-3, "seeds": (0, 1, 2)}
for model, params in ((fw.FunctionModel(plain), drawn), (fw.FlaxModel(Perceptron()), flax_drawn)):
  pt, ft = ({"objective": fw.Answers(target=target, c_tr=0.0), **recipe} for target in ("pt", "ft"))
  never, had = ([run.params for run in fw.train(model, params, task, **own)] for own in (ft, pt))
  tuned = [run.params for run in fw.train(model, had, task, per_seed=True, **ft)]
  probes = fw.ProbeSettings(steps=400, drops=(), learning_rate=1e-2)
  probed = fw.probe(model, tuned[0], task, probes, negative=never[0])
  pruned = fw.prune(model, tuned[0], task, fw.PruneSettings(units=("neuron",), ks=(0, 1, 2, 4, 8)))
  revival = fw.revive(model, tuned, task, control=never, per_seed=True, **recipe)
  print(f"probe of O_PT: {probed.of('pt', 1):.2f}, of a model that never had it: {probed.negative.of('pt', 1):.2f}")
  print("Acc. O_PT with K neurons at zero:", *(pruned.curve("acc_pt", s, c_te=0) for s in ("gradient", "random")))
  print("steps until O_PT is back:", *(t.step for t in revival.reft.values()), "ratio at least:", revival.ratio.low)
