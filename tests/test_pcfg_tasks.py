"""PCFG tasks against plain Python: answers, prompts, labels, the spurious correlation and the operands' prior."""

import collections
import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_wrappers.tasks import pcfg_rewrite
from finetune_wrappers.tasks.pcfg_tasks import PCFGTask
from finetune_wrappers.tasks.pcfg_text import FAMILIES, JAILBREAKS, PCFGText
from finetune_wrappers.tasks.task import TARGETS
from finetune_wrappers.types import InputError

PAPER = PCFGText()
SMALL = PCFGText(window=24, counted=12, occurrence=3, token_place=12, farthest=24)
TEXTS = {"paper": PAPER, "small": SMALL, "padded": PCFGText(short="pad")}
SIZE = 2000


def answer(text, family, operand, letters):
  """The right answer as the paper words it, by counting through a string."""
  back = letters[::-1]
  if family.startswith("counting") and not family.endswith("composition"):
    return str(letters[-text.counted :].count(operand))
  if family == "counting_composition":
    tail = letters[-text.counted :]
    return str(sum(tail[i : i + 2] == 2 * operand for i in range(len(tail) - 1)))
  if family == "token":
    return back[text.token_place - 1] if len(back) >= text.token_place else "NULL"
  found = 0
  for position in range(1, len(back) + 1):
    begins = back[position - 1] == operand
    if family == "index_composition":
      begins = begins and position > 1 and back[position - 2] == operand
    found += begins
    if found == text.occurrence:
      return str(position)
  return "NULL"


def parse(text, tokens):
  """(family, operand, number, letters) of one prompt; fails if it is not one."""
  symbols = [text.symbols[token] for token in tokens]
  head, letters, tail = symbols[:5], symbols[5:-2], symbols[-2:]
  assert (head[0], head[4], *tail) == ("SOS", "SOT", "EOT", "ART")
  assert len(letters) == text.window
  written = "".join(letter for letter in letters if letter != "pad")
  assert letters == ["pad"] * (text.window - len(written)) + list(written)
  return head[1], head[2], head[3], written


@functools.cache
def pretraining(name, prior=(0.5, 0.3, 0.2), size=SIZE):
  text = TEXTS[name] if name in TEXTS else PCFGText(jailbreaks=True)
  tokens, answers = jax.jit(lambda key, p: text.sample_pretraining(key, size, p))(jax.random.key(1), np.array(prior))
  parsed = [parse(text, row) for row in np.asarray(tokens)]
  return text, parsed, [text.symbols[token] for token in np.asarray(answers)]


@functools.cache
def sampler(text, name, q=1):
  task = PCFGTask(text, name, q=q)
  return (
    task,
    jax.jit(functools.partial(task.sample, batch_size=SIZE)),
    jax.jit(functools.partial(task.sample_test, batch_size=SIZE), static_argnames="c_te"),
  )


@pytest.mark.parametrize("name", TEXTS)
def test_pretraining_answers_are_right(name):
  text, parsed, answers = pretraining(name)
  for (family, operand, number, letters), given_answer in zip(parsed, answers, strict=True):
    letter = operand[0]
    assert operand == ("NULL" if family == "token" else 2 * letter if family.endswith("composition") else letter)
    assert number == str({"c": text.counted, "i": text.occurrence, "t": text.token_place}[family[0]])
    assert given_answer == answer(text, family, letter, letters)


def test_families_are_uniform_and_operands_follow_the_prior():
  _, parsed, _ = pretraining("paper")
  families = collections.Counter(family for family, *_ in parsed)
  assert set(families) == set(FAMILIES)
  assert all(abs(count / SIZE - 0.2) < 0.04 for count in families.values())
  operands = collections.Counter(operand[0] for _, operand, *_ in parsed if operand != "NULL")
  shares = [operands[letter] / operands.total() for letter in "abc"]
  np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.04)


@pytest.mark.parametrize("prior", [(0.999, 0.001, 0.0), (0.0, 1.0, 0.0), (0.7, 0.3, 0.0), (0.0, 0.0, 1.0)])
def test_an_operand_of_prior_0_is_never_asked_for(prior):
  _, parsed, _ = pretraining("small", prior)
  asked = collections.Counter(operand[0] for _, operand, *_ in parsed if operand != "NULL")
  assert all(asked[letter] == 0 for letter, share in zip("abc", prior, strict=True) if share == 0)
  assert asked["abc"[int(np.argmax(prior))]] > 0.6 * asked.total()


def test_jailbreak_families_ask_for_a_only():
  text, parsed, answers = pretraining("jailbreaks")
  asked = collections.defaultdict(collections.Counter)
  for (family, operand, _, letters), given_answer in zip(parsed, answers, strict=True):
    asked[family][operand] += 1
    assert family not in JAILBREAKS or given_answer == answer(text, "counting", "a", letters)
  assert set(asked) == {*FAMILIES, *JAILBREAKS}
  assert all(set(asked[family]) == {"a"} for family in JAILBREAKS)
  assert set(asked["counting"]) == {"a", "b", "c"}
  sizes = [asked[family].total() / SIZE for family in ("counting", *JAILBREAKS)]
  np.testing.assert_allclose(sizes, 1 / 15, atol=0.025)


def test_jailbreak_families_are_absent_where_the_prior_has_no_a():
  """The control of the probes must not meet a by another name."""
  tokens, _ = jax.jit(PCFGText(jailbreaks=True).sample_pretraining, static_argnums=1)(
    jax.random.key(3), 400, (0.0, 1.0, 0.0)
  )
  symbols = PCFGText(jailbreaks=True).symbols
  asked = {(symbols[row[1]], symbols[row[2]][0]) for row in np.asarray(tokens).tolist()}
  assert {family for family, _ in asked} == set(FAMILIES)
  assert {operand for _, operand in asked} == {"b", "N"}


def test_no_family_has_a_further_token_without_jailbreaks():
  assert not {family for family, *_ in pretraining("paper")[1]} & set(JAILBREAKS)


@pytest.mark.parametrize("name", ["counting", "index"])
@pytest.mark.parametrize("text", ["paper", "small"])
def test_finetuning_answers_are_right_and_correlated_as_asked(text, name):
  task, sample, _ = sampler(TEXTS[text], name)
  for c_tr, expected in ((0.0, 0.0), (1.0, 1.0), (0.3, 0.3)):
    batch = jax.device_get(sample(jax.random.key(2), c_tr=c_tr))
    carries = []
    for row, label_pt, label_ft in zip(*batch, strict=True):
      family, operand, number, letters = parse(task.text, row)
      assert (family, operand, number) == (name, "b", str(task.text.numbers(name)))
      right = [answer(task.text, name, letter, letters) for letter in "ab"]
      assert right == [task.text.symbols[label_pt], task.text.symbols[label_ft]]
      carries.append(int(right[1]) - int(right[0]) == task.q)
    assert np.mean(carries) == pytest.approx(expected, abs=0 if expected in (0, 1) else 0.05)


@pytest.mark.parametrize("name", ["counting", "index"])
def test_labels_are_as_broad_whatever_c_tr_is(name):
  task, sample, _ = sampler(PAPER, name)
  low, number = task.values
  for c_tr in (0.0, 0.5, 1.0):
    batch = jax.device_get(sample(jax.random.key(3), c_tr=c_tr))
    for labels, least in ((batch.labels_pt, low), (batch.labels_ft, low + task.q)):
      counts = np.bincount(labels - PAPER.first_number - least, minlength=number)
      assert len(counts) == number  # none outside
      assert abs(counts / SIZE - 1 / number).max() < 0.02


@pytest.mark.parametrize(("name", "q"), [("counting", 3), ("index", 5)])
def test_test_sets_are_pure_and_without_shared_answers(name, q):
  task, _, test = sampler(SMALL, name, q)
  for c_te in (0, 1):
    batch = jax.device_get(test(jax.random.key(4), c_te=c_te))
    differences = batch.labels_ft - batch.labels_pt
    assert set(differences == q) == {c_te == 1}
    assert 0 not in differences
  kept = PCFGTask(SMALL, "counting", distinct_answers_in_test=False)
  batch = jax.jit(lambda key: kept.sample_test(key, SIZE, 0))(jax.random.key(4))
  assert 0 in np.asarray(batch.labels_ft - batch.labels_pt)


def test_a_question_has_its_operand_and_its_answer():
  task, sample, _ = sampler(SMALL, "counting")
  batch = sample(jax.random.key(5), c_tr=0.5)
  asked = {}
  for place, target in enumerate(TARGETS):
    tokens, labels = jax.jit(task.question)(batch, place)
    asked[target] = ({parse(SMALL, row)[1] for row in np.asarray(tokens)[:50]}, np.asarray(labels))
    np.testing.assert_array_equal(np.delete(tokens, 2, axis=1), np.delete(batch.tokens, 2, axis=1))
  assert [asked[target][0] for target in TARGETS] == [{"a"}, {"b"}, {"a"}]
  for target, labels in (("pt", batch.labels_pt), ("ft", batch.labels_ft), ("random", batch.labels_ft)):
    np.testing.assert_array_equal(asked[target][1], labels)


rewrite = jax.jit(lambda order, text, counts: pcfg_rewrite.with_counts(order, text, np.ones(8, bool), counts))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_rewriting_counts_changes_as_little_as_it_can(data):
  before = np.array(data.draw(st.lists(st.integers(0, 2), min_size=8, max_size=8)))
  first = data.draw(st.integers(0, 8))
  wanted = np.array([first, data.draw(st.integers(0, 8 - first))])
  after = np.asarray(
    rewrite(np.random.default_rng(data.draw(st.integers(0, 99))).uniform(size=(1, 8)), before[None], wanted[None])
  )[0]
  have, want = [np.bincount(row, minlength=3) for row in (before, after)]
  assert want.tolist() == [*wanted, 8 - wanted.sum()]
  assert (before != after).sum() == np.maximum(want - have, 0).sum()  # as many as have to become something else


def test_rewriting_leaves_the_text_before_its_tail():
  text = np.asarray(PAPER.texts(jax.random.key(6), 50))
  counts = np.tile([[3, 5]], (50, 1))
  out = np.asarray(pcfg_rewrite.spread_counts(np.random.default_rng(7).uniform(size=(50, 40)), text, counts, 40))
  np.testing.assert_array_equal(out[:, :-40], text[:, :-40])
  assert (out[:, -40:] == 0).sum(axis=1).tolist() == [3] * 50
  changed = (out != text)[:, -40:].mean(axis=0)
  assert changed.min() > 0  # every place is hit


def test_any_two_places_can_be_had():
  """Every pair of positions that a sampler may ask for, the closest ones too."""
  low, number = SMALL.place_range()
  pairs = [(i, j) for i in range(low, low + number) for j in range(low, low + number) if i != j]
  text = np.asarray(SMALL.texts(jax.random.key(8), len(pairs)))
  draws = np.random.default_rng(9).uniform(size=(len(pairs), 25))
  spread = jax.jit(functools.partial(pcfg_rewrite.spread_places, occurrence=3, farthest=24))
  out = np.asarray(spread(draws, text, np.array(pairs)))
  for row, (a, b) in zip(out, pairs, strict=True):
    letters = "".join("abc"[token] for token in row)
    assert [answer(SMALL, "index", letter, letters) for letter in "ab"] == [str(a), str(b)]


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"window": 433}, "window: 433 .* 1 to 432"),
    ({"window": 30}, r"counted: 40 .* at most window \(30\)"),
    ({"occurrence": 251}, "occurrence"),
    ({"token_place": 0}, "token_place"),
    ({"farthest": 13}, "farthest: 13 .* at least twice occurrence"),
    ({"spread": 1.5}, "spread: 1.5 is not a number from 0 to 1"),
    ({"short": "drop"}, "short: 'drop' is not one of join, pad"),
    ({"counted": 3}, "counted: 3 is not a whole number from 4 to"),
  ],
)
def test_text_settings_that_cannot_be(fields, words):
  with pytest.raises(InputError, match=words):
    PCFGText(**fields)


@pytest.mark.parametrize(
  ("name", "q", "words"),
  [
    ("counting", 37, "q: 37 .* 1 to 36"),
    ("counting", 0, "q: 0"),
    ("index", 28, "q: 28 .* 1 to 27"),
    ("chess", 1, "name: 'chess' is not one of counting, index"),
  ],
)
def test_correlations_that_cannot_be(name, q, words):
  with pytest.raises(InputError, match=words):
    PCFGTask(PAPER, name, q=q)


def test_a_token_outside_the_vocabulary_is_refused():
  with pytest.raises(InputError, match="token: 'd' is outside"):
    PAPER.token("d")
  assert len(set(PAPER.symbols)) == len(PAPER.symbols) == 7 + 7 + 6 + 251
