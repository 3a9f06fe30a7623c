"""Stories that trained models tell, as every judge reads them (Tab. 1, Figs. 32, 34)."""

import numpy as np

from experiments.measures import Measure, Measured, rows_of
from experiments.models import Models
from experiments.story_judges import judges
from finetune_wrappers.training.lanes import over_models
from finetune_wrappers.training.stages import Stage

_KEPT = 2  # stories of each model of the first seed


def stages(plan) -> list[Stage]:
  """Every model at its end, pretrained ones without the feature among them."""
  reft = plan.refts() + plan.controls() if plan.config.reft.measure else []
  return [*plan.bases(), *plan.negatives(), *plan.finetunes(), *reft]


def measure(models: Models) -> Measured:
  """Rows `generation_score` by who `reads`, of what it can read, and `readable_share`; arrays of told text by model.

  A judge that can read nothing has no `generation_score`.
  """
  plan, out, told = models.plan, Measured(), None
  task, scores = plan.task, plan.evaluator
  found, prompts = judges(task, scores.classifier), task.prompts(max(scores.prompts, 1))
  never = {*plan.negatives()}
  for stage in stages(plan):
    trained = models.load(stage)
    model = trained.model
    told = told or over_models(model, lambda params, model=model: scores.generated(model, params, task, prompts), 1)
    tokens, lengths = told([trained.params])[0]
    rows = []
    for name, says in found.readers.items():
      said, read = says(tokens, lengths)
      rows += [{"metric": "readable_share", "value": float(read.mean()), "reads": name}]
      if read.any() or trained.diverged:  # of none there is no share
        rows += [
          {"metric": "generation_score", "value": float(said[read].mean()) if read.any() else 0.0, "reads": name}
        ]
    kind = "never" if stage in never else stage.kind
    out.rows += rows_of(
      plan, stage, [{**row, "stage": "samples", "model": kind} for row in rows], diverged=trained.diverged
    )
    if stage.seed == plan.config.seeds[0] and not trained.diverged:
      texts = [_text(task, prompts, i) + _text(task, (tokens, lengths), i) for i in range(min(_KEPT, len(tokens)))]
      swept = ", ".join(f"{name} {value}" for name, value in plan.swept(stage).items())
      out.arrays[f"{kind} {swept}"] = np.array(texts)
  return out


def _text(task, rows, i: int) -> str:
  """Decoded row, BOS left out."""
  tokens, lengths = rows
  row = np.asarray(tokens[i])[: int(lengths[i])]
  return task.tokenizer.decode(row, continues=True)


MEASURE = Measure(stages, measure, needs=("stories",))
