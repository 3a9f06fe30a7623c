"""How training may end before everything is trained."""

from collections.abc import Sequence

from finetune_wrappers.training.stages import Stage


class Interrupted(Exception):
  """Training was told to stop, and saved what it had."""


class LanesFailed(Exception):
  """Some lanes could not be trained.

  Attributes:
    stages: which.
    blocked: those that start from them, and so were not begun.
  """

  def __init__(self, stages: Sequence[Stage], blocked: Sequence[Stage]):
    self.stages, self.blocked = stages, blocked
    failed, waiting = ("; ".join(stage.label for stage in some) for some in (stages, blocked))
    text = f"memory of a device: too small for these lanes, each alone: {failed}"
    super().__init__(text + (f"; not begun, as they start from those: {waiting}" if blocked else ""))
