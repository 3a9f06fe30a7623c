"""Documents of TinyStories-Instruct: what is written is read back, in any order of the parts."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_wrappers.tasks.stories.records import FEATURES, Record, document, in_order, instruction, parse_document

FULL = Record(
  story='Sara sat in the park.\n\n"I want to quit," she said.',
  features=("Dialogue", "Twist"),
  words=("quit", "oak", "gloomy"),
  summary="Sara wants to go home.",
  sentence="Sara sat in the park.",
)
LINES = (
  "Features: Dialogue, Twist",
  "Words: quit, oak, gloomy",
  "Summary: Sara wants to go home.",
  "Random sentence: Sara sat in the park.",
)


def test_a_document_by_hand():
  # As the first document of the real file: a space behind `Story:`, then an empty line.
  text = "\n".join(LINES) + '\nStory: \n\nSara sat in the park.\n\n"I want to quit," she said.\n'
  assert parse_document(text) == FULL
  assert parse_document(text.replace("\n", "\r\n")).story == FULL.story.replace("\n", "\r\n")


@pytest.mark.parametrize("order", list(itertools.permutations(range(5))))
def test_parts_come_in_any_order(order):
  parts = [*LINES, f"Story: {FULL.story}"]
  assert parse_document("\n".join(parts[place] for place in order)) == FULL


def test_instructions_are_shuffled_by_the_seed():
  found = [instruction(FULL, seed) for seed in range(2000)]
  assert all(text.split("\n")[-1] == "Story:" and sorted(text.split("\n")[:-1]) == sorted(LINES) for text in found)
  assert len({*found}) == 24 and found == [instruction(FULL, seed) for seed in range(2000)]
  assert max(map(found.count, {*found})) < 2 * 2000 / 24
  assert instruction(Record(story="A."), 3) == "Story:"
  assert document(Record(story="A.", words=("a", "b")), 3) == "Words: a, b\nStory:\nA."


def test_the_mask_has_a_bit_a_feature():
  assert [Record(story="A.", features=(feature,)).mask for feature in FEATURES] == [1, 2, 4, 8, 16, 32]
  assert FULL.mask == 3 and Record(story="A.").mask == 0
  assert in_order(["Conflict", "Twist", "Conflict"]) == ("Twist", "Conflict")


def test_space_inside_a_story_stays():
  story = "A\u2028B\x0bC\u0085D\x1cE  F\n\nG\u3000"
  assert parse_document(f"Story:\n{story}\n").story == story


def test_labels_inside_a_story():
  # The second of a kind is text, and so is one in the middle of a line.
  text = "Summary: A hunt.\nStory:\nShe read: Words: a.\nSummary: not this.\nStory: nor this."
  assert parse_document(text) == Record(story=text.partition("Story:\n")[2], summary="A hunt.")


def test_a_summary_of_two_lines_is_one():
  assert parse_document("Summary: \n\nA hunt.\n It ends.\nStory:\nA.").summary == "A hunt. It ends."


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    ("", "no story"),
    ("Once upon a time.", "no labelled part"),
    ("Hello\nStory: A.", "text before the first part"),
    ("Summary: A hunt.", "no story"),
    ("Summary: A hunt.\nStory: \n\n", "empty story"),
    ("Features: Dialogue, Magic\nStory: A.", "a feature that is none of Dialogue, Twist"),
    ("Features: Dialogue\nTwist\nStory: A.", "Features has more than one line"),
    ("Story: A.\nWords: a, b\nAnd more.", "Words has more than one line"),
    ("story: A.", "no labelled part"),
    ("Story: \ud800", "not UTF-8"),
    ("Story: a<|endoftext|>b", r"<\|endoftext\|> inside a text"),
  ],
)
def test_what_is_no_document_is_refused_with_the_reason(text, reason):
  with pytest.raises(ValueError, match=f"^{reason}"):
    parse_document(text)


def test_lists_are_cleaned():
  found = parse_document("Words: oak ,, oak, gloomy,\nFeatures:Twist ,Dialogue,Twist\nStory: A.")
  assert (found.words, found.features) == (("oak", "gloomy"), ("Dialogue", "Twist"))


plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\t <,:"), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(
  story=st.lists(plain, min_size=1).map("\n".join),
  features=st.lists(st.sampled_from(FEATURES)).map(in_order),
  words=st.lists(plain, unique=True).map(tuple),
  summary=plain | st.just(""),
  sentence=plain | st.just(""),
  seed=st.integers(0, 2**64 - 1),
)
def test_documents_come_back(seed, **parts):
  record = Record(**parts)
  assert parse_document(document(record, seed)) == record
