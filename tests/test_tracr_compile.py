"""Compiled programs against plain Python: right at the chosen exactness, and refused where they would be wrong."""

import functools
import json
import random
import re

import jax
import numpy as np
import pytest
from tracr.compiler import compiling
from tracr.rasp import rasp

from finetune_wrappers.models import tracr_compile, tracr_stage
from finetune_wrappers.tasks.tracr_tasks import CounterTask, MaxIdentifierTask, counter_program, max_identifier_program
from finetune_wrappers.types import InputError

ONE_LINE = r"\A{}: [^\n]+\Z"
LETTERS = set("abc")
STRINGS = ["".join(random.Random(n).sample(("a" * n + "bc" * 6)[:12], 12)) for n in range(13)]
SMALL_COUNTER = CounterTask(num_letters=5, vocab_size=3, num_pads=1)
SMALL_MAX = MaxIdentifierTask(num_letters=4, vocab_size=6, num_pads=1, q=1, rank_pt=2, rank_ft=3)


@pytest.fixture(autouse=True)
def full_precision():
  with jax.default_matmul_precision("highest"):
    yield


@functools.cache
def counter(reading):
  """Of up to 12 letters, compiled as users do and checked on a few strings of one length."""
  program = counter_program("a", reading=reading)
  return tracr_compile.compile_program(program, vocab=LETTERS, max_seq_len=12, check_inputs=STRINGS[:3])


@functools.cache
def ranked(reading):
  program = max_identifier_program(2, reading=reading)
  inputs = [list("fdab")]
  return tracr_compile.compile_program(program, vocab=set("abcdef"), max_seq_len=4, check_inputs=inputs)


def answers(assembled, strings):
  """Decoded at every letter, with Tracr's own encoders."""
  tokens = np.array([assembled.input_encoder.encode(["compiler_bos", *string]) for string in strings])
  output = np.asarray(jax.jit(assembled.forward)(assembled.params, tokens).unembedded_output)
  return [assembled.output_encoder.decode(row[1:].tolist()) for row in output]


def test_the_literal_counter_answers_at_the_second_letter_and_counts_the_others_at_the_first():
  for string, answer in zip(STRINGS, answers(counter("literal"), STRINGS), strict=True):
    assert answer == [12 - string.count("a"), string.count("a"), *[0] * 10]


def test_the_constant_true_counter_answers_at_every_letter():
  for string, answer in zip(STRINGS, answers(counter("constant_true"), STRINGS), strict=True):
    assert answer == [string.count("a")] * 12


def test_the_max_identifier_answers_where_its_reading_says():
  strings = ["".join(random.Random(n).sample("abcdef", 4)) for n in range(12)]
  literal, everywhere = (answers(ranked(reading), strings) for reading in ("literal", "constant_true"))
  for string, at_second, at_all in zip(strings, literal, everywhere, strict=True):
    assert at_second[1] == sorted(string)[1]
    assert at_all == [sorted(string)[1]] * 4


def test_tracrs_default_exactness_miscounts_twelve_letters_and_is_refused():
  program = counter_program("a")
  wrong = compiling.compile_rasp_to_model(program, LETTERS, 12, mlp_exactness=100)
  assert [answer[1] for answer in answers(wrong, STRINGS)] != [string.count("a") for string in STRINGS]
  with pytest.raises(InputError, match=ONE_LINE.format("mlp_exactness")):
    tracr_compile.compile_program(program, vocab=LETTERS, max_seq_len=12, mlp_exactness=100)


def test_the_chosen_exactness_is_the_smallest_that_gives_a_one_hot_count():
  exactness = tracr_compile.exactness_for(12)
  right, lower = most_uncertain_count(exactness), most_uncertain_count(exactness - 6)
  assert right <= 1e-3 and lower >= 5e-3


def most_uncertain_count(exactness):
  """Largest distance of a count's logits from one-hot, after the only MLP that counts."""
  program = counter_program("a")
  assembled = compiling.compile_rasp_to_model(program, LETTERS, 12, mlp_exactness=exactness)
  tokens = np.array([assembled.input_encoder.encode(["compiler_bos", *string]) for string in STRINGS])
  output = jax.jit(assembled.forward)(assembled.params, tokens).transformer_output.output
  logits_BxV = (np.asarray(output) @ tracr_compile.unembedding(assembled))[:, 2]
  return np.abs(logits_BxV - np.eye(13)[[string.count("a") for string in STRINGS]]).max()


@pytest.mark.parametrize(("length", "exactness"), [(1, 4), (5, 60), (12, 312), (47, 4512), (647, 838_512)])
def test_exactness_is_chosen_from_the_length(length, exactness):
  assert tracr_compile.exactness_for(length) == exactness


@pytest.mark.parametrize("length", [-1, 0, 648, 100_000])
def test_a_length_that_float32_cannot_count_to_is_refused(length):
  for call in (tracr_compile.exactness_for, compile_counter_of_length):
    with pytest.raises(InputError, match=ONE_LINE.format("max_seq_len")) as error:
      call(length)
  if length > 0:
    longest = int(re.search(r"use (\d+) or less", str(error.value))[1])
    assert longest == 647


def compile_counter_of_length(length):
  return tracr_compile.compile_program(counter_program(), vocab=LETTERS, max_seq_len=length)


@pytest.mark.parametrize("exactness", [-1, 0, 900_000])
def test_an_exactness_that_float32_cannot_carry_is_refused_by_name(exactness):
  with pytest.raises(InputError, match=r"\Amlp_exactness: [^\n]*\b312\b[^\n]*\Z"):
    tracr_compile.compile_program(counter_program(), vocab=LETTERS, max_seq_len=12, mlp_exactness=exactness)


@pytest.mark.parametrize("program", [counter_program, max_identifier_program])
def test_an_unknown_reading_is_refused(program):
  with pytest.raises(InputError, match=ONE_LINE.format("reading")):
    program(reading="second_letter")


def test_a_causal_program_counts_the_past():
  program = rasp.SelectorWidth(rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.EQ))
  assembled = tracr_compile.compile_program(program, vocab={"a", "b"}, max_seq_len=5, causal=True)
  assert answers(assembled, ["abaab"]) == [["abaab"[: i + 1].count(letter) for i, letter in enumerate("abaab")]]


def test_unembedding_is_the_projection_that_decodes():
  assembled = counter("literal")
  matrix = tracr_compile.unembedding(assembled)
  assert set(np.unique(matrix)) == {0.0, 1.0} and np.array_equal(matrix.T @ matrix, np.eye(13))
  labels = [assembled.residual_labels[row] for row in matrix.argmax(axis=0)]
  assert [label.split(":")[1] for label in labels] == [str(count) for count in range(13)]
  assert len({label.split(":")[0] for label in labels}) == 1
  tokens = np.array([assembled.input_encoder.encode(["compiler_bos", *string]) for string in STRINGS])
  output = jax.jit(assembled.forward)(assembled.params, tokens)
  logits = np.asarray(output.transformer_output.output) @ matrix
  assert np.array_equal(logits.argmax(-1), output.unembedded_output)


@functools.cache
def built(task, operand):
  return tracr_stage.build(task, operand=operand, reading="literal", mlp_exactness=0)


@pytest.mark.parametrize(("task", "operand"), [(SMALL_COUNTER, "ft"), (SMALL_MAX, "pt")])
def test_the_module_restored_from_facts_answers_for_its_operand(task, operand):
  arrays, facts = built(task, operand)
  model = tracr_stage.restore(json.loads(json.dumps(facts)))
  generator = np.random.default_rng(0)
  strings = [generator.choice(list(task.letters), task.num_letters, task is SMALL_COUNTER) for _ in range(20)]
  symbols = [["compiler_bos", *string, "compiler_pad"] for string in strings]
  tokens = np.array([[task.symbols.index(symbol) for symbol in row] for row in symbols])
  logits = np.asarray(jax.jit(model.apply)(arrays, tokens).logits)[:, task.answer_position]
  have = [facts["classes"][answer] for answer in logits.argmax(-1)]
  if task is SMALL_COUNTER:
    assert have == [str(list(string).count("b")) for string in strings]
  else:
    assert have == [sorted(string)[{"pt": 1, "ft": 2}[operand]] for string in strings]


def test_facts_and_weights_do_not_depend_on_what_was_compiled_before():
  arrays, facts = built(SMALL_COUNTER, "ft")
  for _ in range(3):
    counter_program("a")
  again, facts_again = tracr_stage.build(SMALL_COUNTER, operand="ft", reading="literal", mlp_exactness=0)
  assert facts_again == facts and jax.tree.all(jax.tree.map(np.array_equal, arrays, again))
  assert len(facts["labels"]) == facts["model"]["width"]
  assert all(re.fullmatch(r"[a-z_]+(:.+)?", label) for label in facts["labels"])
  assert not any(re.search(r"_\d", label) for label in facts["labels"])


def test_a_stage_with_too_low_an_exactness_is_refused_by_either_check(monkeypatch):
  task = CounterTask(num_letters=12, vocab_size=3, num_pads=0)
  for expected in ("RASP interpreter", "of 512 strings wrongly"):
    with pytest.raises(InputError, match=rf"\Amlp_exactness: [^\n]*{expected}[^\n]*\Z"):
      tracr_stage.build(task, operand="pt", reading="literal", mlp_exactness=60)
    monkeypatch.setattr(tracr_compile, "_check", lambda *_: None)


@pytest.mark.parametrize("task", [SMALL_COUNTER, SMALL_MAX, CounterTask(), MaxIdentifierTask()])
def test_the_papers_tasks_keep_the_exactness_of_the_shipped_models(task):
  assert task.mlp_exactness == tracr_compile.exactness_for(task.max_seq_len)
