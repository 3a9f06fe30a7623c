"""Probes of every feature on pretrained, fine-tuned and reference models (Figs. 11, 35-38)."""

from experiments.measures import Measure, Measured, rows_of
from experiments.models import Models
from experiments.plan import within
from finetune_wrappers.analysis.feature_probes import FeatureProber, FeatureProbeSettings
from finetune_wrappers.training.stages import Stage
from finetune_wrappers.types import require


def stages(plan) -> list[Stage]:
  """Models pretrained with the feature (upper reference) and without (lower), and fine-tuned ones.

  Raises:
    InputError: for a setting of the probes that is not allowed, before anything is trained.
  """
  settings, held_out = _settings(plan), plan.config.stories.held_out
  for field in ("stories", "eval_size"):
    value = getattr(settings, field)
    require(not 0 < held_out < value, f"probes.{field}", value, f"stories.held_out ({held_out}) or less")
  return [*plan.bases(), *plan.negatives(), *plan.finetunes()]


def measure(models: Models) -> Measured:
  """Rows of stage `probe`: accuracy by block and by what is read; `model` as in `measures.probes`."""
  plan, out, prober = models.plan, Measured(), None
  never = {*plan.negatives()}
  for stage in stages(plan):
    trained = models.load(stage)
    if prober is None:
      with within("probes"):
        prober = FeatureProber(trained.model, plan.task, _settings(plan))
    fields = {"model": "never" if stage in never else stage.kind}
    out.rows += rows_of(plan, stage, prober(trained.params).rows(), diverged=trained.diverged, **fields)
  return out


def _settings(plan) -> FeatureProbeSettings:
  with within("probes"):
    return FeatureProbeSettings(**plan.config.probes)


MEASURE = Measure(stages, measure, needs=("probes.instructed",))
