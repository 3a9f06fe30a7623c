"""Figure 11: the loss as the feature is revived, and what probes read of it after deletion."""

from experiments.reports import REVERSED, Made, Report, story_curves, story_probes
from finetune_wrappers.reporting.claims import markdown_claims
from finetune_wrappers.reporting.rows import Row


def make(rows: list[Row], arrays: dict, facts: dict) -> Made:
  """Both, with their claims."""
  feature = facts["config"]["stories"]["feature"]
  curves, probes = story_curves.make(rows, arrays, facts), story_probes.make(rows, arrays, facts)
  return Made(
    title=f"{feature} deleted, probed and revived ({facts['config']['name']})",
    sections=[*curves.sections[1:], *probes.sections],
    figures={
      "figure": story_curves.figure(rows, facts, ("reft",), ("loss_feature", "loss_other")),
      "probes": story_probes.figure(rows, facts, [feature, "control"]),
    },
    verdict=markdown_claims(
      [
        story_curves.raised_claim(rows),
        story_curves.below_claim(rows),
        story_probes.kept_claim(rows, feature),
        story_probes.control_claim(rows),
      ]
    ),
  )


REPORT = Report(make, reads=("behaviour", "feature_probes"), needs=("finetune.protocols",), limits=REVERSED)
