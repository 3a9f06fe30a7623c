"""Two RASP programs of your own: compiled, fine-tuned into each other, pruned, probed and revived.

python -m examples.own_program
"""

import functools

from tracr.rasp import rasp

import finetune_wrappers as fw


def surplus(first, second):
  """How many more of the first letter than of the second."""
  same = (
    rasp.Select(rasp.tokens, rasp.Map(lambda _, o=o: o, rasp.tokens), rasp.Comparison.EQ) for o in (first, second)
  )
  return rasp.SequenceMap(lambda one, other: max(one - other, 0), *map(rasp.SelectorWidth, same))


task = fw.ProgramTask(
  functools.partial(surplus, "x", "y"), functools.partial(surplus, "y", "z"), name="surplus", vocab=("x", "y", "z"),
  num_letters=5, answer_position=1, correlation=fw.offset(1),
)  # fmt: skip
model, compiled = fw.compile_task(task, "pt")
_, control = fw.compile_task(task, "ft")  # never had O_PT
seeds, evaluator = (0, 1, 2), fw.Accuracies(300)
tuned = fw.train(
  model, compiled, task, objective=fw.Answers(target="ft", c_tr=1.0), optimizer=fw.SGD.paper(400, eval_every=100),
  learning_rate=0.1, seeds=seeds, evaluator=evaluator, noise_std=1e-5,
)  # fmt: skip
for run in tuned:
  print("fine-tuned, Acc. O_FT at C_Te = 1 and 0:", *(run.curve("acc_ft", c_te=c_te)[-1] for c_te in (1, 0)))
params = [run.params for run in tuned]
pruned = fw.prune(model, params[0], task, fw.PruneSettings(scopes=("near_zero",), ks=(0, 1, 2, 4)), compiled)
print(
  "K zeroed, Acc. O_PT by score and at random:", *(pruned.curve("acc_pt", s, c_te=0) for s in ("gradient", "random"))
)
probed = fw.probe(model, params[0], task, fw.ProbeSettings(steps=300, drops=(), learning_rate=1e-2), control)
print("probes of O_PT by block:", {b: (probed.of("pt", b), probed.negative.of("pt", b)) for b in probed.blocks})
revival = fw.revive(model, params, control, task, optimizer=fw.SGD.paper(300, eval_every=10), learning_rate=0.01, seeds=seeds)  # fmt: skip
print("steps until O_PT is back:", revival.reft, "control:", revival.control, revival.ratio)
