"""Made stories: labels against what was drawn, a twist that no count of words tells, splits that share no story."""

import hashlib
import itertools
import re

import numpy as np
import pytest
from scipy.optimize import minimize

from finetune_wrappers.tasks.stories import lexicon
from finetune_wrappers.tasks.stories.draws import happens, mixed
from finetune_wrappers.tasks.stories.maker import SPLITS, StoryMaker, feature_by_rule, twist_by_rule
from finetune_wrappers.tasks.stories.records import FEATURES, document
from finetune_wrappers.types import InputError

MAKER = StoryMaker()
RECORDS = [MAKER.record("train", index) for index in range(6000)]
HAS = np.array([[feature in record.features for feature in FEATURES] for record in RECORDS])


def test_the_hash_is_the_published_one():
  # First three outputs of SplitMix64 from the seed 1234567 (Rosetta Code's test values); its state grows by the
  # constant that `mixed` adds to the number.
  golden = 0x9E3779B97F4A7C15
  states = [(1234567 + place * golden) % 2**64 for place in range(3)]
  assert [mixed(state) for state in states] == [6457827717110365317, 3203168211198807973, 9817491932198370423]
  assert mixed(1, 2) != mixed(2, 1) and mixed(0) != mixed(0, 0)


def test_an_event_has_its_share():
  assert abs(np.mean([happens(0.3, 5, index) for index in range(10000)]) - 0.3) < 4 * (0.21 / 10000) ** 0.5
  assert not any(happens(0.0, index) for index in range(100)) and all(happens(1.0, index) for index in range(100))


def test_texts_are_those_of_version_1():
  """Whoever changes a text raises `version`: stage keys know texts by it."""
  texts = "".join(document(MAKER.record(split, index), index) for split in SPLITS for index in range(300))
  assert (MAKER.version, hashlib.sha256(texts.encode()).hexdigest()[:16]) == (1, "5ef8046c676c5d86")


def test_a_record_depends_on_seed_split_and_index_only():
  assert MAKER.record("valid", 7) == StoryMaker().record("valid", 7)
  stories = {StoryMaker(seed=seed).record(split, 7).story for seed in (0, 1) for split in SPLITS}
  assert len(stories) == 6
  assert MAKER.record("train", 2**64 - 1).story


@pytest.mark.parametrize("place", range(len(FEATURES)))
def test_every_label_is_read_back(place):
  feature = FEATURES[place]
  assert [feature_by_rule(record.story, feature=feature) for record in RECORDS] == list(HAS[:, place])


def test_labels_are_as_a_reader_sees_them():
  """A few words of our own, not the rule's patterns."""
  for record in RECORDS[:1000]:
    story, has = record.story, set(record.features)
    things = [word for word in re.findall(r"\w+", story) if word in lexicon.THINGS]
    assert ("Dialogue" in has) == (story.count('"') == 2)
    assert ("Conflict" in has) == ("fought" in story)
    assert ("MoralValue" in has) == ("It is good to " in story or "Always " in story)
    assert ("BadEnding" in has) == ("cried" in story or "lost it" in story)
    assert len(things) - 3 == ("dreamed" in story or "sang" in story)
    assert ("Foreshadowing" in has) == (len(things) == 4 and things[0] == things[-1])
    expected, other = things[-3:-1]
    assert things[-1] == (other if "Twist" in has else expected)
    assert ("Twist" in has) >= ("What a surprise" in story or "was wrong" in story)
    assert ("Twist" not in has) >= ("No surprise" in story or "was right" in story)


def test_features_have_their_shares_and_are_independent():
  error = 4 * np.sqrt(0.25 / len(RECORDS))
  assert np.abs(HAS.mean(axis=0) - MAKER.shares).max() < error
  correlation = np.corrcoef(HAS.T) - np.eye(len(FEATURES))
  assert np.abs(correlation).max() < 4 / np.sqrt(len(RECORDS))


def counts(texts):
  """Counts of words and signs, and whether each is there: [texts, 2 words]."""
  split = [re.findall(r"\w+|[^\w\s]", text) for text in texts]
  place = {word: number for number, word in enumerate(sorted({word for words in split for word in words}))}
  table = np.zeros((len(texts), len(place)))
  for row, words in enumerate(split):
    np.add.at(table[row], [place[word] for word in words], 1)
  return np.concatenate([table, table > 0], axis=1)


def accuracy_of_words(x, labels):
  """Held-out accuracy of a logistic regression on the words of the stories, trained on two thirds."""
  train, test = slice(0, 4000), slice(4000, None)
  sign = 2.0 * labels - 1

  def loss(weights):
    margin = sign[train] * (x[train] @ weights)
    slope = -sign[train] / (1 + np.exp(np.clip(margin, -50, 50)))
    return np.logaddexp(0, -margin).mean() + 1e-4 * weights @ weights, x[train].T @ slope / 4000 + 2e-4 * weights

  weights = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 60}).x
  return np.mean((x[test] @ weights > 0) == labels[test])


def test_no_count_of_words_tells_twist():
  silent = StoryMaker(remarked=0.0)
  texts = [silent.record("train", index).story for index in range(len(RECORDS))]
  twist = HAS[:, FEATURES.index("Twist")]  # remarks are drawn after all labels
  assert [twist_by_rule(text) for text in texts] == list(twist)
  x, told = (np.c_[counts(own), np.ones(len(RECORDS))] for own in (texts, [record.story for record in RECORDS]))
  base = 1 - twist[4000:].mean()
  assert accuracy_of_words(x, twist) < base + 0.03 < 0.9
  assert abs(accuracy_of_words(told, twist) - (0.8 + 0.2 * base)) < 0.03  # remarks tell of four in five
  assert accuracy_of_words(x, HAS[:, FEATURES.index("Conflict")]) > 0.99  # such a classifier can read what words tell


def test_every_twist_has_a_twin_of_the_same_words():
  for record in itertools.islice((record for record in RECORDS if "Twist" in record.features), 200):
    things = [word for word in re.findall(r"\w+", record.story) if word in lexicon.THINGS][-3:-1]
    swapped = record.story
    begin = swapped.index("it had" if "it had" in swapped else "It has")
    end = swapped.index(".", begin)
    other = dict(zip(things, reversed(things), strict=True))
    middle = re.sub(r"\w+", lambda found, other=other: other.get(found[0], found[0]), swapped[begin:end])
    swapped = swapped[:begin] + middle + swapped[end:]
    assert sorted(re.findall(r"\w+", swapped)) == sorted(re.findall(r"\w+", record.story))
    assert twist_by_rule(record.story) is True and twist_by_rule(swapped) is False


def residue(story):
  """The sum that decides the split, from a story's words."""
  names = [word for word in re.findall(r"\w+", story) if word in lexicon.NAMES]
  things = [word for word in re.findall(r"\w+", story) if word in lexicon.THINGS][-3:-1]
  place = next(word for word in re.findall(r"\w+", story) if word in lexicon.PLACES)
  numbers = [lexicon.NAMES.index(name) for name in {*names}] + [lexicon.THINGS.index(thing) for thing in things]
  assert len(numbers) == 4
  return (sum(numbers) + lexicon.PLACES.index(place)) % 10


def test_splits_share_no_story_by_construction():
  split_of = {**dict.fromkeys(range(8), "train"), 8: "valid", 9: "test"}
  for seed, split in itertools.product((0, 9), SPLITS):
    maker = StoryMaker(seed=seed, shares=(0.5,) * 6)
    assert {split_of[residue(maker.record(split, index).story)] for index in range(500)} == {split}
  words = [*lexicon.NAMES, *lexicon.THINGS, *lexicon.PLACES, *lexicon.BOXES, *lexicon.LOOKS, *lexicon.ANIMALS]
  assert len({*words}) == len(words) and len(lexicon.NAMES) == len(lexicon.THINGS) == len(lexicon.PLACES) == 10


def test_splits_share_no_story_among_10_to_the_5_of_each():
  stories = {split: {MAKER.record(split, index).story for index in range(100_000)} for split in SPLITS}
  assert sum(map(len, stories.values())) == len(set().union(*stories.values()))
  assert min(map(len, stories.values())) > 99_900


def test_stories_are_short():
  assert max(len(record.story.split()) for record in RECORDS) <= 65


@pytest.mark.parametrize(
  ("story", "twist"),
  [
    ('"It has a cat, not a hat," said Z. They saw a hat in it.', True),
    ('"It has a cat and no hat," said Z. In it was a cat.', False),
    ("Z was sure it had a cat, not a hat. In it was a dog.", None),
    ("Z was sure it had a cat, not a hat.", None),
    ("They saw a hat in it.", None),
    ("They saw a hat in it. Z was sure it had a cat, not a hat.", None),
    ("Z was sure it had a cat, not a hat. They saw a hat in it. In it was a cat.", None),
    ("Once upon a time there was a fox.", None),
    ("", None),
  ],
)
def test_a_model_s_text_is_read_or_refused(story, twist):
  assert twist_by_rule(story) is twist


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"shares": (0.5,)}, "shares: .* one for each of Dialogue, Twist"),
    ({"shares": (0.5,) * 5 + (1.5,)}, "shares: 1.5 is not a number from 0 to 1"),
    ({"seed": -1}, "seed: -1 is not a whole number"),
    ({"version": 2}, "version: 2 is not a whole number from 1 to 1"),
  ],
)
def test_settings_out_of_their_range_are_refused(change, message):
  with pytest.raises(InputError, match=f"^{message}"):
    StoryMaker(**change)


def test_other_splits_indices_and_features_are_refused():
  with pytest.raises(InputError, match="^split: 'dev' is not allowed; use train, valid, test"):
    MAKER.record("dev", 0)
  for index in (-1, 2**64):
    with pytest.raises(InputError, match="^index: "):
      MAKER.record("train", index)
  with pytest.raises(InputError, match="^feature: 'Surprise'"):
    feature_by_rule("", feature="Surprise")


def test_settings_are_hashable_and_all_or_nothing_shares_work():
  assert len({StoryMaker(), StoryMaker(), StoryMaker(seed=1)}) == 2
  everything = StoryMaker(shares=(1.0,) * 6)
  nothing = StoryMaker(shares=(0.0,) * 6)
  assert {everything.record("test", index).features for index in range(200)} == {FEATURES}
  assert {nothing.record("test", index).features for index in range(200)} == {()}
