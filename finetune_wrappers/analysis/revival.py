"""Revival (paper part A and B): how many steps of reverse fine-tuning bring a capability back, beside a control.

A run that never reaches the threshold is censored, not left out. The ratio of median steps, the control's over the
model's, says how much sooner the capability is back than a model that never had it learns it.

    found = revive(model, finetuned, task, control=control, optimizer=optimizer, learning_rate=1e-3, seeds=range(3))
    found.ratio, found.rows()
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from finetune_wrappers.models.model import Model
from finetune_wrappers.rules import SHARE_ABOVE_0
from finetune_wrappers.statistics import (
  MedianRatio,
  Passage,
  bootstrap_median_ratio,
  first_passage,
  kaplan_meier_median,
)
from finetune_wrappers.tasks.task import Task
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.objectives import Answers
from finetune_wrappers.training.optim import Optimizer
from finetune_wrappers.training.run import starts_of, train
from finetune_wrappers.types import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
  """Accuracy of one run at its evaluations.

  Attributes:
    steps: [E], increasing, the first before any training.
    accuracies: [E], fractions; NaN from where the run diverged.
  """

  steps: Sequence[float]
  accuracies: Sequence[float]


class Median(NamedTuple):
  """A median passage time of several runs.

  Attributes:
    steps: the first step at which half of the runs have passed; if censored, the last at which they surely have not.
    censored: whether half of them never do.
    reached: runs that reached the threshold.
    runs: all of them, those that diverged before the first step left out.
  """

  steps: float
  censored: bool
  reached: int
  runs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Revival:
  """When runs of reverse fine-tuning, and of a control, first reach the threshold.

  Attributes:
    threshold: accuracy for O_PT that counts as back, a fraction.
    reft: passage of each run by seed; those with nothing to revive, at the threshold before the first step, and those
      that diverged before it are left out.
    control: the same of the control's runs; those at the threshold from the start stay.
  """

  threshold: float
  reft: dict[int, Passage]
  control: dict[int, Passage]

  @classmethod
  def of(cls, *, reft: Mapping[int, Curve], control: Mapping[int, Curve], threshold: float) -> "Revival":
    """From curves by seed.

    Raises:
      InputError: for a threshold that is no fraction above 0.
    """
    SHARE_ABOVE_0.check("threshold", threshold)
    return cls(threshold=threshold, reft=revived(passages(reft, threshold)), control=passages(control, threshold))

  @functools.cached_property
  def ratio(self) -> MedianRatio | None:
    """The control's median over reFT's, with its interval; None where one side has no runs."""
    if not (self.reft and self.control):
      return None
    return bootstrap_median_ratio(numerator=[*self.control.values()], denominator=[*self.reft.values()])

  def rows(self) -> list[dict[str, Any]]:
    """`steps_to_revival` of each run, `median_steps` of each side, and `median_ratio`.

    Rows say `censored` where the value is what is certain, and `stage` which side: `reft` or `scratch_ft`. A ratio has
    `low`, `high`, `lower_bound` and `upper_bound`; what is not finite is None.
    """
    found = []
    for stage, times in (("reft", self.reft), ("scratch_ft", self.control)):
      common = {"stage": stage, "threshold": self.threshold}
      for seed, time in times.items():
        found.append(
          {"metric": "steps_to_revival", "value": time.step, "censored": time.censored, "seed": seed, **common}
        )
      if times:
        own = median(times.values())
        found.append({"metric": "median_steps", "value": own.steps, "censored": own.censored, **common})
    ratio = self.ratio
    if ratio is not None and math.isfinite(ratio.ratio):
      fields = {name: value if math.isfinite(value) else None for name, value in dataclasses.asdict(ratio).items()}
      value = fields.pop("ratio")
      found.append({"metric": "median_ratio", "value": value, "stage": "reft", "threshold": self.threshold, **fields})
    return found


def revive(
  model: Model,
  params: Params | Sequence[Params],
  task: Task,
  *,
  control: Params | Sequence[Params],
  per_seed: bool | None = None,
  optimizer: Optimizer,
  learning_rate: float,
  threshold: float = 0.8,
  seeds: Sequence[int] = (0,),
  eval_size: int = 1000,
) -> Revival:
  """Reverse fine-tunes a model and a control on O_PT, both by one recipe, and compares when they get there.

  Strings carry no spurious correlation (C_Tr = C_Te = 0): with it, answering for O_FT minus q would pass for the old
  capability.

  Args:
    model: of both.
    params: of the model under study: one pytree for all seeds; with `per_seed` a list or tuple with one for each.
    task: whose O_PT is asked for.
    control: the same of a model that never had the capability.
    per_seed: whether `params` and `control` have one pytree for each seed, see `train`.
    optimizer: how long and by which steps; passages are known to the distance of its `eval_steps`.
    learning_rate: the maximum of the schedule.
    threshold: accuracy for O_PT that counts as back.
    seeds: of the data; three or more for an interval worth the name.
    eval_size: strings of the test set.

  Raises:
    InputError: for values that cannot be, before anything is trained.
  """
  SHARE_ABOVE_0.check("threshold", threshold)
  starts = [starts_of(params, seeds, per_seed=per_seed), starts_of(control, seeds, per_seed=per_seed, name="control")]
  recipe: dict[str, Any] = {
    "objective": Answers(target="pt", c_tr=0.0),
    "optimizer": optimizer,
    "evaluator": Accuracies(eval_size),
    "learning_rate": learning_rate,
    "seeds": seeds,
  }

  def curves(kind: str, start: list[Params]) -> dict[int, Curve]:
    runs = train(model, start, task, per_seed=True, kind=kind, **recipe)
    return {
      run.stage.seed: Curve(steps=run.steps.tolist(), accuracies=run.curve("acc_pt", c_te=0).tolist()) for run in runs
    }

  return Revival.of(reft=curves("reft", starts[0]), control=curves("scratch_ft", starts[1]), threshold=threshold)


def passages(curves: Mapping[int, Curve], threshold: float) -> dict[int, Passage]:
  """First passage of each run by seed; those that diverged before the first step are left out."""
  return {
    seed: first_passage(steps=curve.steps, accuracies=curve.accuracies, threshold=threshold)
    for seed, curve in curves.items()
    if not math.isnan(curve.accuracies[0])
  }


def revived(times: Mapping[int, Passage]) -> dict[int, Passage]:
  """Those of runs that had something to revive: not at the threshold before the first step."""
  return {seed: time for seed, time in times.items() if time.censored or time.step > 0}


def median(times: Iterable[Passage]) -> Median:
  """The median with its censoring.

  Args:
    times: of one run or more, else ValueError.
  """
  times = list(times)
  steps = kaplan_meier_median(times)
  censored = math.isinf(steps)
  if censored:  # what is certain: every censored run may pass right after it was last seen
    steps = kaplan_meier_median([time._replace(censored=False) for time in times])
  return Median(steps, censored, sum(not time.censored for time in times), len(times))
