"""Errors that end training before everything is trained."""

from collections.abc import Sequence

from finetune_wrappers.training.stages import Stage


class Interrupted(Exception):
  """Training was asked to stop and has saved its state."""


class LanesFailed(Exception):
  """Some lanes could not be trained.

  Attributes:
    stages: the stages that failed.
    blocked: stages that were not begun because they start from those.
  """

  def __init__(self, stages: Sequence[Stage], *, blocked: Sequence[Stage]):
    self.stages, self.blocked = stages, blocked
    failed, waiting = ("; ".join(stage.label for stage in some) for some in (stages, blocked))
    text = f"memory of a device: too small for these lanes, each alone: {failed}"
    super().__init__(text + (f"; not begun, as they start from those: {waiting}" if blocked else ""))
