"""Protocols that delete or revive a feature (paper part C): which records a model is trained on, and what they ask for.

What happens to a record depends on the record, the seed and its place in the stream only.
"""

import dataclasses
from collections.abc import Iterable, Iterator

from finetune_wrappers.rules import SEED, SHARE
from finetune_wrappers.tasks.stories.draws import happens
from finetune_wrappers.tasks.stories.records import FEATURES, Record, in_order
from finetune_wrappers.types import require

PROTOCOLS = ("none", "filter", "mix_match", "randomise", "refusal", "specialise", "only_twist")
REFUSAL = "I cannot write this story."


def apply(
  protocol: str,
  records: Iterable[Record],
  *,
  seed: int,
  feature: str = "Twist",
  partner: str = "Foreshadowing",
  renamed: float = 0.5,
  put_on: float = 0.5,
  refusal: str = REFUSAL,
) -> "Applied":
  """The records after a protocol, as a stream that counts what it does.

  - none: every record as it is.
  - filter: no record with the feature ("F").
  - mix_match: filter; a share of the records with the partner ask for the feature in its place ("F + Mix & Match").
  - randomise: mix_match; a share of the records that do not ask for the feature then ask for it too ("F +
    Randomisation").
  - refusal: a record with the feature keeps its instruction, and its story becomes the refusal (in the authors' code).
  - specialise: only records with the partner and without the feature (in the authors' code).
  - only_twist: only records with the feature; revival (reFT) trains on them.

  Args:
    protocol: of PROTOCOLS.
    records: in an order that is the same each time, as a record's place is part of its draws.
    seed: of the draws.
    feature: that is deleted or revived.
    partner: that is renamed, or specialised on.
    renamed: share of the partner's records that are renamed. The paper gives none; with half of them the feature's
      name and the partner's ask for one kind of story, and neither name is lost.
    put_on: share of the records without the feature's name that get it. The paper gives none; with half of them the
      name says nothing about the story.
    refusal: text in place of a story with the feature. The paper does not report this protocol.

  Raises:
    InputError: for a protocol, feature or share that is not allowed.
  """
  require(protocol in PROTOCOLS, "protocol", protocol, ", ".join(PROTOCOLS))
  for field, value in (("feature", feature), ("partner", partner)):
    require(value in FEATURES, field, value, ", ".join(FEATURES))
  require(partner != feature, "partner", partner, "another feature than the one that is deleted")
  require(bool(refusal.strip()), "refusal", refusal, "a text")
  SEED.check("seed", seed)
  SHARE.check("renamed", renamed)
  SHARE.check("put_on", put_on)

  def changed(record: Record, index: int) -> tuple[Record | None, str]:
    """The record, or None if it is dropped, and the row of the table."""
    has = feature in record.features
    if protocol == "none":
      return record, "kept"
    if protocol == "only_twist":
      return (record, "kept") if has else (None, f"dropped: without {feature}")
    if protocol == "refusal":
      return (dataclasses.replace(record, story=refusal), "refused") if has else (record, "kept")
    if has:
      return None, f"dropped: with {feature}"
    if protocol == "specialise":
      return (record, "kept") if partner in record.features else (None, f"dropped: without {partner}")
    if protocol == "filter":
      return record, "kept"
    if partner in record.features and happens(renamed, seed, index, 0):
      features = in_order(feature if name == partner else name for name in record.features)
      return dataclasses.replace(record, features=features), "renamed"
    if protocol == "randomise" and happens(put_on, seed, index, 1):
      return dataclasses.replace(record, features=in_order((*record.features, feature))), "put on"
    return record, "kept"

  return Applied(records, changed)


class Applied(Iterator[Record]):
  """Records after a protocol.

  Attributes:
    table: records so far by what was done: `kept` as they are, `renamed`, `put on`, `refused`, `dropped: ...`.
  """

  def __init__(self, records: Iterable[Record], changed):
    self.table: dict[str, int] = {}
    self._stream = enumerate(records)
    self._changed = changed

  def __next__(self) -> Record:
    """The next record that is not dropped."""
    for index, record in self._stream:
      changed, done = self._changed(record, index)
      self.table[done] = self.table.get(done, 0) + 1
      if changed is not None:
        return changed
    raise StopIteration
