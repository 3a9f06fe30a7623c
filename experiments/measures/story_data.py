"""What protocols did to the stories, and how good each judge of stories is."""

import numpy as np

from experiments.measures import Measure, Measured
from experiments.measures.data import data_row
from experiments.models import Models
from experiments.story_judges import judges
from finetune_wrappers.training.stages import Stage, root_of


def stages(plan) -> list[Stage]:
  """One root stage; only stories are measured."""
  return [root_of(plan.bases()[0])]


def measure(models: Models) -> Measured:
  """Rows `stories` by protocol and what was `done`; `left_out`; `acc_judge` by who `reads`, with `guess_baseline`;
  `called_share`, how many of the stories with the feature and without (`label`) a judge calls ones with it.

  `left_out` counts malformed records of files by split (`scope`) and by reason and place of the first (`done`).
  """
  plan, out = models.plan, Measured()
  task, classifier = plan.task, plan.evaluator.classifier
  reviving = [stage.objective.protocol for stage in plan.refts()] if plan.config.reft.measure else []
  for protocol in dict.fromkeys(["none", *plan.config.finetune.protocols, *reviving]):
    for done, count in task.table("train", protocol=protocol).items():
      out.rows.append(data_row(plan, "stories", count, protocol=protocol, done=done))
  for split in ("train", "test"):  # valid reads the files of test
    for count, reason, first in task.dropped(split, protocol="none"):
      out.rows.append(data_row(plan, "left_out", count, scope=split, done=f"{reason}; first at {first}"))
  for split in ("valid", "test"):
    if count := task.repeated(split):
      out.rows.append(data_row(plan, "left_out", count, scope=split, done="the training files have the same story"))
  found = judges(task, classifier)
  tokens, lengths, labels = found.labelled("test", classifier.eval_size)
  out.rows.append(data_row(plan, "guess_baseline", float(max(labels.mean(), 1 - labels.mean()))))
  for name, says in found.readers.items():
    said, read = says(tokens, lengths)
    out.rows.append(data_row(plan, "acc_judge", float(np.mean((said == labels) & read)), reads=name))
    for label, own in (("with", labels), ("without", ~labels)):
      out.rows.append(data_row(plan, "called_share", float(np.mean(said[own])), reads=name, label=label))
  return out


MEASURE = Measure(stages, measure, needs=("stories",))
