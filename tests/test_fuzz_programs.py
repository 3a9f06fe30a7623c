"""Random small RASP programs: each is compiled to what Tracr's interpreter says on every string, or refused."""

import functools
import itertools
import zlib
from collections import Counter

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from tracr.rasp import causal_eval, rasp

from finetune_wrappers.models import tracr_compile
from finetune_wrappers.types import InputError

CHUNKS, EACH = 6, 55
NUMBERS = (-2, -1, -0.5, 0, 0, 0, 0.5, 1, 1, 1, 2, 3)
COMPARISONS = tuple(rasp.Comparison)
SEEN: Counter = Counter()


def answers(assembled, string):
  """The model written out in NumPy at Tracr's precision, without pads: the answer at each letter."""
  params, encoder = assembled.params, assembled.input_encoder
  tokens = encoder.encode([encoder.bos_token, *string])
  x = np.asarray(params["token_embed"]["embeddings"])[tokens]
  x = x + np.asarray(params["pos_embed"]["embeddings"])[: len(tokens)]
  config = assembled.model_config
  mask = np.tri(len(tokens), dtype=bool) if config.causal else np.ones((len(tokens), len(tokens)), bool)
  for i in range(config.num_layers):
    layer = {
      name.removeprefix(f"transformer/layer_{i}/"): (np.asarray(w["w"]), np.asarray(w["b"]))
      for name, w in params.items()
      if name.startswith(f"transformer/layer_{i}/")
    }
    affine = {name: lambda y, w=w, b=b: y @ w + b for name, (w, b) in layer.items()}
    split = (len(tokens), config.num_heads, config.key_size)
    q, k, v = (affine[f"attn/{name}"](x).reshape(split) for name in ("query", "key", "value"))
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(np.float32(config.key_size))
    scores = np.where(mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    x = x + affine["attn/linear"](np.einsum("hqk,khd->qhd", weights, v).reshape(len(tokens), -1))
    x = x + affine["mlp/linear_2"](np.maximum(affine["mlp/linear_1"](x), 0))
  logits = (x @ tracr_compile.unembedding(assembled))[1:]
  assert logits.dtype == np.float32
  labels = getattr(assembled.output_encoder, "encoding_map", None)
  return logits[:, 0].tolist() if labels is None else [list(labels)[i] for i in logits.argmax(axis=-1)]


@st.composite
def programs(draw):
  """(make, vocab, max_seq_len): one to five steps on tokens; `make` builds the same program each time."""
  vocab = draw(st.sampled_from([("a", "b"), ("a", "b", "c"), (0, 1), (1, 2, 3)]))
  length = draw(st.integers(1, 4 if len(vocab) == 2 else 3))
  plan = [
    (
      draw(st.sampled_from(["map", "map", "number", "pair", "count", "move", "average", "sum", "read", "scale"])),
      draw(st.integers(0, 10**6)),
    )
    for _ in range(draw(st.integers(1, 5)))
  ]
  return (lambda: built(plan, vocab)), set(vocab), length


def any_of(rng, steps):
  return steps[rng.integers(len(steps))]


def any_selector(rng, steps):
  return rasp.Select(any_of(rng, steps), any_of(rng, steps), any_of(rng, COMPARISONS))


def random_table(rng, values):
  """A function of any tokens or numbers, the same in every process."""
  places = rng.integers(len(values), size=97)
  return lambda *x: values[
    places[zlib.crc32(repr([float(v) if not isinstance(v, str) else v for v in x]).encode()) % 97]
  ]


def built(plan, vocab):
  """Steps that read earlier ones at random; kinds that lack a numerical input give way to one that makes it."""
  categorical, numerical, last = [rasp.tokens, rasp.indices], [], rasp.tokens
  for kind, seed in plan:
    rng = np.random.default_rng(seed)
    pick, table = functools.partial(any_of, rng), functools.partial(random_table, rng)
    if kind in ("average", "sum", "read", "scale") and not numerical:
      kind = "number"
    if kind == "map":
      last = rasp.Map(table(vocab + (True, False)[: 0 if 1 in vocab else 2]), pick(categorical))
    elif kind == "number":
      values = NUMBERS if rng.integers(2) else (0, 1)
      last = rasp.numerical(rasp.Map(table(values), pick(categorical)))
    elif kind == "pair":
      last = rasp.SequenceMap(table(vocab), pick(categorical), pick(categorical))
    elif kind == "count":
      last = rasp.SelectorWidth(any_selector(rng, categorical))
      last = rasp.numerical(last) if rng.integers(4) == 0 else last
    elif kind == "move":
      last = rasp.Aggregate(any_selector(rng, categorical), pick(categorical))
    elif kind == "average":
      last = rasp.numerical(rasp.Aggregate(any_selector(rng, categorical), pick(numerical), default=0))
    elif kind == "sum":
      last = rasp.numerical(
        rasp.LinearSequenceMap(pick(numerical), pick(numerical), *pick([(1, -1), (2, 1), (-1, 0.5)]))
      )
    else:
      limit = float(rng.choice([-0.5, 0.25, 0.5, 0.75, 1.5]))
      read = rasp.Map((lambda x, y=limit: x > y) if kind == "read" else (lambda x, y=limit: x * y - 1), pick(numerical))
      last = read if kind == "read" else rasp.numerical(read)
    (numerical if rasp.is_numerical(last) else categorical).append(last)
  return last


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_program_is_what_the_interpreter_says_on_every_string_or_refused(chunk):
  @hypothesis.seed(chunk)
  @hypothesis.settings(max_examples=EACH, deadline=None, database=None)
  @hypothesis.given(programs(), st.booleans())
  def each(program, causal):
    make, vocab, length = program
    evaluate = causal_eval.evaluate if causal else rasp.evaluate
    try:
      assembled = tracr_compile.compile_program(make(), vocab=vocab, max_seq_len=length, causal=causal)
    except InputError as error:
      assert "\n" not in str(error), str(error)
      SEEN[str(error).split(":")[0]] += 1
      return
    SEEN["compiled"] += 1
    oracle = make()
    for n in range(1, length + 1):
      for string in itertools.product(sorted(vocab), repeat=n):
        try:
          wanted = evaluate(oracle, list(string))
        except (ArithmeticError, TypeError, ValueError):
          continue  # undefined somewhere in the string
        for want, have in zip(wanted, answers(assembled, string), strict=True):
          same = want is None or (
            abs(want - have) <= 2e-4 * max(1, abs(want)) if rasp.is_numerical(oracle) else want == have
          )
          assert same, (string, want, have)

  each()


def test_the_programs_are_of_every_kind():
  """Not all refused, and not all for one reason: chance alone would not make the test above mean anything."""
  assert SEEN["compiled"] >= 0.25 * sum(SEEN.values())
