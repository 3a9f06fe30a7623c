"""Analysis: what a model learned and kept, each procedure one call on a Model, parameters and a Task."""

from finetune_wrappers.analysis.attention import Observed, Observer, observe
from finetune_wrappers.analysis.linear_probes import ProbeSettings
from finetune_wrappers.analysis.probing import Probed, Prober, probe, saturated, selectivity
from finetune_wrappers.analysis.pruning import Pruned, Pruner, PruneSettings, prune
from finetune_wrappers.analysis.revival import Curve, Revival

__all__ = [
  "Curve",
  "Observed",
  "Observer",
  "ProbeSettings",
  "Probed",
  "Prober",
  "PruneSettings",
  "Pruned",
  "Pruner",
  "Revival",
  "observe",
  "probe",
  "prune",
  "saturated",
  "selectivity",
]
