"""Two RASP programs of your own become a task, and the one for O_PT a model: `python -m examples.own_program`."""

import functools

import jax
from tracr.rasp import rasp

from finetune_wrappers.models import tracr_stage
from finetune_wrappers.tasks.programs import ProgramTask, offset


def count(letter):
  same = rasp.Select(rasp.tokens, rasp.Map(lambda _: letter, rasp.tokens), rasp.Comparison.EQ)
  return rasp.SelectorWidth(same)


def surplus(first, second):
  return rasp.SequenceMap(lambda one, other: max(one - other, 0), count(first), count(second))


task = ProgramTask(
  functools.partial(surplus, "x", "y"), functools.partial(surplus, "y", "z"), name="surplus",
  vocab=("x", "y", "z"), num_letters=5, answer_position=1, correlation=offset(1),
)  # fmt: skip
arrays, facts = tracr_stage.build(task, operand="pt")
model, params = tracr_stage.restore(facts), arrays["params"]
tests = task.sample_test(jax.random.key(0), 256, 1)  # of strings that are held out
answers = task.output.predicted(model.answer(params, tests.tokens, task.answer_position))
accuracy = float((answers == tests.labels_pt).mean())
print(f"Acc. O_PT {accuracy:.0%}, Acc. O_FT {(answers == tests.labels_ft).mean():.0%}")  # 100 % and 0 %
