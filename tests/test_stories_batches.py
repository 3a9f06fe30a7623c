"""Batches: each row once an epoch, by step alone, and the same rows for any number of hosts."""

import functools
import subprocess
import sys

import grain
import numpy as np
import pytest

from finetune_wrappers.tasks.stories.batches import Batches
from finetune_wrappers.tasks.stories.cache import build_cache
from finetune_wrappers.tasks.stories.tokenizer import train_tokenizer
from finetune_wrappers.types import InputError

DOCUMENTS = [("", f"{i} " + "ab cd. " * (i * i % 9), i) for i in range(23)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  tokenizer = train_tokenizer([story for _, story, _ in DOCUMENTS], vocab_size=280)
  return build_cache(tmp_path_factory.mktemp("stories") / "c", DOCUMENTS, tokenizer, sources={})


def batches(cache, **options):
  return Batches(cache, **{"length": 12, "batch_size": 5, "seed": 3, "packed": False, "chosen": None} | options)


def padded(ids, length):
  row = [*ids[: length + 1]]
  return tuple(row + [2] * (length + 1 - len(row))), len(row)


def expected(cache, *, length, packed, chosen=None):
  """The rows of an epoch, without an order, from lists."""
  documents = [cache.document(i).tolist() for i in (range(len(cache)) if chosen is None else chosen)]
  if not packed:
    return [padded(document, length) for document in documents]
  stream = [token for document in documents for token in document]
  return [padded(stream[at : at + length + 1], length) for at in range(0, len(stream) - 1, length)]


def rows_of(found):
  return [(tuple(tokens), length) for tokens, length in zip(found.tokens.tolist(), found.lengths.tolist(), strict=True)]


@functools.cache
def stream(found, rows):
  """The first rows of a run, batch by batch."""
  steps = -(-rows // found.batch_size)
  return [row for step in range(steps) for row in rows_of(found.at(step))][:rows]


CASES = [
  {"length": length, "packed": packed, "chosen": chosen}
  for length in (1, 7, 12, 400)
  for packed in (False, True)
  for chosen in (None, (4,), (20, 3, 11, 0))
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("batch_size", [1, 5])
def test_each_row_comes_once_an_epoch(cache, case, batch_size):
  wanted = sorted(expected(cache, **case))
  found = batches(cache, batch_size=batch_size, **case)
  assert found.epoch == len(wanted)
  epochs = 3 if found.epoch < 100 else 1
  seen = stream(found, epochs * found.epoch)
  for epoch in range(epochs):
    assert sorted(seen[epoch * found.epoch : (epoch + 1) * found.epoch]) == wanted


@pytest.mark.parametrize("chosen", [None, (20, 3, 11, 0)])
def test_packed_rows_make_every_token_a_target_once(cache, chosen):
  found = batches(cache, packed=True, chosen=chosen)
  targets = np.concatenate([np.array(tokens[1:length]) for tokens, length in stream(found, found.epoch)])
  whole = np.concatenate([cache.document(i) for i in (range(23) if chosen is None else chosen)])[1:]
  assert np.array_equal(np.bincount(targets, minlength=280), np.bincount(whole, minlength=280))


def test_shapes_and_types(cache):
  found = batches(cache).at(0)
  assert found.tokens.shape == (5, 13) and found.tokens.dtype == np.uint16
  assert found.lengths.shape == (5,) and found.lengths.dtype == np.int32


@pytest.mark.parametrize("packed", [False, True])
def test_a_step_is_the_same_whenever_it_is_asked_for(cache, packed):
  forward = [rows_of(batches(cache, packed=packed).at(step)) for step in range(9)]
  again = batches(cache, packed=packed)
  assert [rows_of(again.at(step)) for step in reversed(range(9))] == forward[::-1]
  assert [rows for rows in forward if forward.count(rows) > 1] == []


@pytest.mark.parametrize("packed", [False, True])
def test_steps_are_those_of_grains_own_batches(cache, packed):
  found = batches(cache, packed=packed)
  for step, (tokens, lengths) in zip(range(9), found.rows.batch(5).to_iter_dataset(), strict=False):
    assert np.array_equal(tokens, found.at(step).tokens) and np.array_equal(lengths, found.at(step).lengths)
  options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)
  ahead = iter(found.rows.batch(5).to_iter_dataset(options))
  assert all(np.array_equal(next(ahead)[0], found.at(step).tokens) for step in range(9))


def test_batch_sizes_cut_one_stream(cache):
  small, large = batches(cache, batch_size=2), batches(cache, batch_size=7)
  assert stream(small, 60) == stream(large, 60)


@pytest.mark.parametrize("hosts", [1, 2, 3, 5])
def test_parts_of_hosts_make_up_the_batch(cache, hosts):
  found = batches(cache)
  for step in (0, 4, 11):
    parts = [found.at(step, part=(i, hosts)) for i in range(hosts)]
    assert np.array_equal(np.concatenate([part.tokens for part in parts]), found.at(step).tokens)
    assert np.array_equal(np.concatenate([part.lengths for part in parts]), found.at(step).lengths)
    assert {len(part.lengths) for part in parts} <= {5 // hosts, 5 // hosts + 1}


def order(cache, seed, epoch):
  """Documents by their masks, which the test made their places."""
  places = {row: i for i, row in enumerate(expected(cache, length=400, packed=False))}
  found = batches(cache, length=400, batch_size=23, seed=seed)
  return tuple(places[row] for row in rows_of(found.at(epoch)))


def test_each_epoch_and_each_seed_has_an_order_of_its_own(cache):
  orders = [order(cache, seed, epoch) for seed in range(4) for epoch in range(4)]
  assert len(set(orders)) == 16 and tuple(range(23)) not in orders


def test_orders_are_spread_evenly(cache):
  places = {row: i for i, row in enumerate(expected(cache, length=6, packed=False))}
  rows = (rows_of(batches(cache, length=6, batch_size=1, seed=seed).at(0))[0] for seed in range(230))
  firsts = np.bincount([places[row] for row in rows], minlength=23)
  assert ((firsts - 10) ** 2 / 10).sum() < 48.3  # chi-square, 22 degrees of freedom, 0.1 %


PINNED = (6, 12, 20, 13, 17, 14, 22, 19, 8, 3, 5, 0, 11, 2, 9, 1, 21, 16, 10, 18, 4, 7, 15)


def test_the_order_is_the_same_in_another_process_and_in_another_version(cache):
  script = (
    "import sys; from finetune_wrappers.tasks.stories.cache import TokenCache;"
    "from tests.test_stories_batches import order; print(order(TokenCache.open(sys.argv[1]), 7, 1))"
  )
  done = subprocess.run([sys.executable, "-c", script, cache.folder], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == str(order(cache, 7, 1))
  # A grain that shuffles otherwise would continue a run with other batches.
  assert order(cache, 7, 1) == PINNED


def test_cut_documents_are_counted(cache):
  sizes = np.array([len(cache.document(i)) for i in range(23)])
  for length in {1, 400, *sizes.tolist(), *(sizes - 1).tolist()}:
    assert batches(cache, length=length).cut == (sizes > length + 1).sum()
  assert batches(cache, length=12, chosen=[2]).cut == (sizes[2] > 13) and batches(cache, packed=True).cut == 0


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"length": 0}, "^length: 0 is not"),
    ({"batch_size": 0}, "^batch_size: 0 is not"),
    ({"batch_size": 2.5}, "^batch_size: 2.5 is not"),
    ({"seed": -1}, "^seed: -1 is not"),
    ({"packed": 1}, "^packed: 1 is not True or False"),
    ({"chosen": []}, "^chosen: empty"),
    ({"chosen": [1, 1]}, "^chosen: .* each document once"),
    ({"chosen": [23]}, "^chosen: .* from 0 to 22"),
    ({"chosen": [-1]}, "^chosen: .* from 0 to 22"),
    ({"chosen": [True] * 23}, "^chosen: .* from 0 to 22"),
    ({"chosen": [[1]]}, "^chosen: .* from 0 to 22"),
  ],
)
def test_arguments_out_of_range_are_named(cache, options, message):
  with pytest.raises(InputError, match=message):
    batches(cache, **options)


@pytest.mark.parametrize(
  ("step", "part", "message"),
  [(-1, (0, 1), "^step: -1 is not"), (0, (1, 1), "^part: "), (0, (0, 6), "^part: "), (0, (-1, 2), "^part: ")],
)
def test_steps_and_parts_out_of_range_are_named(cache, step, part, message):
  with pytest.raises(InputError, match=message):
    batches(cache).at(step, part=part)
