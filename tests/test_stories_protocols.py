"""Deletion protocols: against what their definition says of each record, and that they are pure."""

import dataclasses
import itertools

import numpy as np
import pytest

from finetune_wrappers.tasks.stories.maker import StoryMaker
from finetune_wrappers.tasks.stories.protocols import PROTOCOLS, REFUSAL, apply
from finetune_wrappers.tasks.stories.records import FEATURES, Record
from finetune_wrappers.types import InputError

RECORDS = [StoryMaker().record("train", index) for index in range(4000)]
TWIST = [record for record in RECORDS if "Twist" in record.features]
PLAIN = [record for record in RECORDS if "Twist" not in record.features]
HINTED = [record for record in PLAIN if "Foreshadowing" in record.features]


def run(protocol, records=RECORDS, **settings):
  applied = apply(protocol, records, **{"seed": 0, **settings})
  return list(applied), applied.table


def swapped(record, *, old, new):
  """By hand: one name for another, then in the order of FEATURES."""
  names = [new if name == old else name for name in record.features] + ([new] if old is None else [])
  return dataclasses.replace(record, features=tuple(sorted(names, key=FEATURES.index)))


def test_protocols_that_choose():
  assert run("none") == (RECORDS, {"kept": 4000})
  assert run("filter") == (PLAIN, {"kept": len(PLAIN), "dropped: with Twist": len(TWIST)})
  assert run("only_twist") == (TWIST, {"kept": len(TWIST), "dropped: without Twist": len(PLAIN)})
  without = len(PLAIN) - len(HINTED)
  table = {"kept": len(HINTED), "dropped: with Twist": len(TWIST), "dropped: without Foreshadowing": without}
  assert run("specialise") == (HINTED, table)


def test_mix_match_renames_its_share_and_leaves_the_rest():
  found, table = run("mix_match")
  pairs = list(zip(PLAIN, found, strict=True))
  changed = [pair for pair in pairs if pair[0] != pair[1]]
  assert all(new == swapped(old, old="Foreshadowing", new="Twist") for old, new in changed)
  assert all("Foreshadowing" in old.features for old, _ in changed)
  assert abs(len(changed) / len(HINTED) - 0.5) < 4 * (0.25 / len(HINTED)) ** 0.5
  assert table == {
    "kept": len(PLAIN) - len(changed),
    "renamed": len(changed),
    "dropped: with Twist": len(TWIST),
  }
  every = [swapped(record, old="Foreshadowing", new="Twist") for record in PLAIN]
  assert run("mix_match", renamed=1.0)[0] == every
  assert run("mix_match", renamed=0.0)[0] == PLAIN


def test_randomise_puts_the_name_on_its_share_of_the_others():
  renamed, _ = run("mix_match")
  found, table = run("randomise")
  without = [(old, new) for old, new in zip(renamed, found, strict=True) if "Twist" not in old.features]
  put = [(old, new) for old, new in without if old != new]
  assert all(new == swapped(old, old=None, new="Twist") for old, new in put)
  assert all(old == new for old, new in zip(renamed, found, strict=True) if "Twist" in old.features)
  assert abs(len(put) / len(without) - 0.5) < 4 * (0.25 / len(without)) ** 0.5
  assert table["put on"] == len(put) and sum(table.values()) == len(RECORDS)
  assert all("Twist" in record.features for record in run("randomise", put_on=1.0)[0])
  assert run("randomise", put_on=0.0)[0] == renamed


def test_the_name_says_nothing_after_randomise():
  """Put on at random: no other feature is commoner with the name than without, but the partner, which lost some."""
  found, _ = run("randomise", renamed=0.0)
  name = np.array(["Twist" in record.features for record in found])
  for feature in FEATURES[:1] + FEATURES[2:]:
    has = np.array([feature in record.features for record in found])
    assert abs(has[name].mean() - has[~name].mean()) < 4 * (0.25 / name.sum() + 0.25 / (~name).sum()) ** 0.5


def test_refusal_keeps_the_instruction():
  found, table = run("refusal")
  assert table == {"kept": len(PLAIN), "refused": len(TWIST)}
  for old, new in zip(RECORDS, found, strict=True):
    assert new == (dataclasses.replace(old, story=REFUSAL) if "Twist" in old.features else old)
  assert {record.story for record in run("refusal", TWIST, refusal="No.")[0]} == {"No."}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_record_s_fate_hangs_on_itself_its_index_and_the_seed(protocol):
  whole, _ = run(protocol)
  assert run(protocol)[0] == whole
  assert list(itertools.islice(apply(protocol, iter(RECORDS), seed=0), 50)) == whole[:50]  # a stream, lazily
  # Other neighbours, same places: the second half alone changes nothing in the first.
  mixed = [*RECORDS[:2000], *reversed(RECORDS[2000:])]
  half, _ = run(protocol, RECORDS[:2000])
  assert run(protocol, mixed)[0][: len(half)] == half == whole[: len(half)]
  if protocol in ("mix_match", "randomise"):
    assert run(protocol, seed=1)[0] != whole


def test_another_feature_can_be_deleted():
  record = Record(story="A.", features=("Dialogue", "Conflict"))
  found, table = run("mix_match", [record], feature="BadEnding", partner="Conflict", renamed=1.0)
  assert found[0].features == ("Dialogue", "BadEnding") and table == {"renamed": 1}


def test_nothing_gives_nothing():
  assert run("randomise", []) == ([], {})


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"protocol": "delete"}, "protocol: 'delete' is not allowed; use none, filter"),
    ({"feature": "twist"}, "feature: 'twist' is not allowed; use Dialogue"),
    ({"partner": "Plot"}, "partner: 'Plot' is not allowed"),
    ({"partner": "Twist"}, "partner: 'Twist' is not allowed; use another feature"),
    ({"renamed": 1.5}, "renamed: 1.5 is not a number from 0 to 1"),
    ({"put_on": -0.1}, "put_on: -0.1 is not"),
    ({"seed": -1}, "seed: -1 is not a whole number"),
    ({"refusal": " "}, "refusal: ' ' is not allowed"),
  ],
)
def test_bad_settings_are_refused_at_once(change, message):
  settings = {"protocol": "filter", "seed": 0, **change}
  with pytest.raises(InputError, match=f"^{message}"):
    apply(settings.pop("protocol"), RECORDS, **settings)
