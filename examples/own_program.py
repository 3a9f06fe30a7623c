"""Two RASP programs of your own: compiled, fine-tuned into each other, pruned, probed and revived."""

import functools

from tracr.rasp import rasp

import finetune_wrappers as fw


def count(letter):
  the_letter = rasp.Map(lambda _: letter, rasp.tokens)
  return rasp.SelectorWidth(rasp.Select(rasp.tokens, the_letter, rasp.Comparison.EQ))


task = fw.ProgramTask(
  functools.partial(count, "x"), functools.partial(count, "y"), name="count", vocab=("x", "y", "z"), num_letters=6,
  answer_position=1, correlation=fw.offset(1),
)  # fmt: skip
model, compiled = fw.compile_task(task, "pt")
_, control = fw.compile_task(task, "ft")  # a model that never had O_PT
seeds = (0, 1, 2)
runs = fw.train(
  model, compiled, task, objective=fw.Answers(target="ft", c_tr=1.0), optimizer=fw.SGD.paper(400, eval_every=200),
  learning_rate=0.1, seeds=seeds, evaluator=fw.Accuracies(300), noise_std=1e-5,
)  # fmt: skip
tuned = [run.params for run in runs]
pruned = fw.prune(model, tuned[0], task, fw.PruneSettings(scopes=("near_zero",), ks=(0, 1, 2, 4)), compiled=compiled)
settings = fw.ProbeSettings(steps=200, drops=(), learning_rate=1e-2, eval_size=960)
probed = fw.probe(model, tuned[0], task, settings, negative=control)
reft = {"optimizer": fw.SGD.paper(300, eval_every=10), "learning_rate": 0.03, "seeds": seeds}
revival = fw.revive(model, tuned, task, control=[control] * len(seeds), per_seed=True, **reft)

for run in runs:
  print("fine-tuned, Acc. O_FT at C_Te = 1 and 0:", *(f"{run.curve('acc_ft', c_te=c_te)[-1]:.2f}" for c_te in (1, 0)))
print("Acc. O_PT with K weights at zero:", *(pruned.curve("acc_pt", s, c_te=0) for s in ("gradient", "random")))
for b in (1, 2):
  print(f"probe of O_PT, block {b}: {probed.of('pt', b):.2f}, of the control {probed.negative.of('pt', b):.2f}")
for name, times in (("O_PT is back", revival.reft), ("the control has O_PT", revival.control)):
  print(f"steps until {name}:", *(f"{'more than ' * time.censored}{time.step:.0f}" for time in times.values()))
print("ratio of the medians, at least:", f"{revival.ratio.low:.1f}")  # lower end of the 95 % interval
