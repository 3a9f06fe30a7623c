"""Generation against the uncached model, one string at a time, and top-p against a loop over sorted probabilities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune_wrappers.models import llama
from finetune_wrappers.models.generate import generate, kept
from finetune_wrappers.models.llama_layers import LlamaConfig
from finetune_wrappers.types import InputError

CONFIG = LlamaConfig(vocab_size=11, length=24, blocks=2, heads=4, kv_heads=2, width=16, hidden=20, tied=False)
STEPS, NEVER = 15, 11
LENGTHS = np.array([9, 1, 4, 9])


@functools.cache
def case(seed=0):
  """(model, params, prompts with nonsense behind their ends)."""
  arrays, facts = llama.build(CONFIG, seed)
  generator = np.random.default_rng(seed)
  params = jax.tree.map(lambda w: np.float32(generator.normal(0, 0.5, w.shape)), arrays["params"])
  prompts = generator.integers(0, 11, (4, 9))
  return llama.restore(facts), params, np.where(np.arange(9) < LENGTHS[:, None], prompts, 10**6)


def uncached(prompt, eos=NEVER, choose=np.argmax, seed=0):
  """(tokens, log-probabilities) until eos, by the whole model on the whole string for each token."""
  model, params, _ = case(seed)
  string, found = [*prompt], []
  forward = jax.jit(model.forward)
  for _ in range(STEPS):
    padded = np.zeros((1, CONFIG.length), int)
    padded[0, : len(string)] = string
    logits = np.float64(forward(params, padded).logits[0, len(string) - 1])
    token = int(choose(logits))
    found.append((token, logits[token] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()))
    string.append(token)
    if token == eos:
      break
  return [list(part) for part in zip(*found, strict=True)]


def test_the_cache_changes_nothing():
  model, params, prompts = case()
  tokens, log_probs = generate(model, params, prompts, LENGTHS, steps=STEPS, eos=NEVER)
  assert tokens.dtype == np.int32 and tokens.shape == log_probs.shape == (4, STEPS)
  for i, length in enumerate(LENGTHS):
    want, probs = uncached(prompts[i, :length])
    assert tokens[i].tolist() == want and log_probs[i] == pytest.approx(probs, abs=1e-4)
  assert len({*np.asarray(tokens).ravel()}) > 3


def test_eos_ends_a_string_and_no_other():
  model, params, prompts = case()
  free = np.asarray(generate(model, params, prompts, LENGTHS, steps=STEPS, eos=NEVER)[0])
  eos = int(free[0, 3])
  tokens, log_probs = map(np.asarray, generate(model, params, prompts, LENGTHS, steps=STEPS, eos=eos))
  ends = [row.index(eos) if eos in row else STEPS for row in free.tolist()]
  assert ends[0] <= 3 and len({*ends}) > 1
  for i, end in enumerate(ends):
    assert tokens[i, :end].tolist() == free[i, :end].tolist() and (tokens[i, end:] == eos).all()
    assert (log_probs[i, : end + 1] < 0).all() and (log_probs[i, end + 1 :] == 0).all()


def test_samples_are_what_gumbel_noise_on_the_uncached_logits_says():
  model, params, prompts = case()
  key, temperature = jax.random.key(3), 0.7
  tokens, log_probs = generate(
    model, params, prompts, LENGTHS, steps=STEPS, eos=NEVER, temperature=temperature, key=key
  )
  again, _ = generate(model, params, prompts, LENGTHS, steps=STEPS, eos=NEVER, temperature=temperature, key=key)
  assert np.array_equal(tokens, again)
  for i, length in enumerate(LENGTHS):
    steps = iter(range(STEPS))

    def choose(logits, steps=steps, i=i):
      noise = jax.random.gumbel(jax.random.fold_in(key, next(steps)), (4, 11))[i]
      return np.argmax(logits / temperature + noise)

    want, probs = uncached(prompts[i, :length], choose=choose)
    assert tokens[i].tolist() == want and log_probs[i] == pytest.approx(probs, abs=1e-4)  # of the model, not tempered


def nucleus(logits, top_p):
  """The ids that a sampler takes, likeliest first, until they have the probability; and equals of the last."""
  probs = np.exp(np.float64(logits) - logits.max())
  probs, chosen, total, last = probs / probs.sum(), set(), 0.0, 0.0
  for i in np.argsort(-probs, kind="stable"):
    if total >= top_p and probs[i] < last:
      break
    last = probs[i]
    chosen.add(int(i))
    total += last
  return chosen


@pytest.mark.parametrize("top_p", [1e-6, 0.1, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_set_of_a_sampler_written_out(top_p):
  logits = np.float32(np.random.default_rng(1).normal(0, 3, (20, 50)))
  logits[0, :] = 0.0
  logits[1, 10:] = logits[1, 9]
  found = np.asarray(kept(logits, top_p))
  for row, have in zip(logits, found, strict=True):
    chosen = np.flatnonzero(np.isfinite(have))
    assert {*chosen.tolist()} == nucleus(row, top_p) and (have[chosen] == row[chosen]).all()
  assert kept(logits, None) is logits


def test_top_p_reaches_the_samples():
  model, params, prompts = case()
  greedy, _ = generate(model, params, prompts, LENGTHS, steps=STEPS, eos=NEVER)
  settings = {"steps": STEPS, "eos": NEVER, "temperature": 3.0, "key": jax.random.key(0)}
  assert np.array_equal(generate(model, params, prompts, LENGTHS, top_p=1e-6, **settings)[0], greedy)
  wide = np.asarray(generate(model, params, prompts, LENGTHS, **settings)[0])
  assert (wide != greedy).mean() > 0.5


def test_it_works_in_jit_over_lanes_and_in_cond():
  model, _, prompts = case()
  lanes = [case(seed)[1] for seed in (0, 1)]
  call = functools.partial(generate, model, steps=STEPS, eos=2)
  alone = [call(params, prompts, LENGTHS) for params in lanes]
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *lanes)
  together = jax.jit(jax.vmap(lambda params: call(params, prompts, jnp.asarray(LENGTHS))))(stacked)

  @jax.jit
  def perhaps(yes, params):
    nothing = jnp.zeros((4, STEPS), jnp.int32), jnp.zeros((4, STEPS))
    return jax.lax.cond(yes, lambda: call(params, prompts, LENGTHS), lambda: nothing)

  for i, (tokens, log_probs) in enumerate(alone):
    for have in (jax.tree.map(lambda leaf, i=i: leaf[i], together), perhaps(True, lanes[i])):
      assert np.array_equal(have[0], tokens) and np.asarray(have[1]) == pytest.approx(np.asarray(log_probs), abs=1e-4)
  assert not np.asarray(perhaps(False, lanes[0])[0]).any() and not np.array_equal(alone[0][0], alone[1][0])


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"steps": 16}, "prompts: '9 tokens and 16 steps' is not allowed; use 24 or fewer together, the model's length"),
    ({"steps": 0}, "steps: 0 is not a whole number from 1 to 1000000"),
    ({"temperature": -1.0}, "temperature: -1.0 is not a number of 0 or more that float32 can hold"),
    ({"temperature": 1.0}, "key: missing; give a random key, or temperature 0"),
    ({"top_p": 0.0}, "top_p: 0.0 is not a number above 0, at most 1, that float32 can hold"),
    ({"lengths": [9, 0, 4, 9]}, r"lengths: [9, 0, 4, 9] is not allowed; use 4 numbers from 1 to 9"),
    ({"lengths": [10, 1, 4, 9]}, r"lengths: [10, 1, 4, 9] is not allowed; use 4 numbers from 1 to 9"),
    (
      {"lengths": [9, 2, 4, 9]},
      "prompts: 'ids from 0 to 1000000' is not allowed; use 0 to 10, those of the vocabulary",
    ),
    ({"lengths": [9]}, r"lengths: [9] is not allowed; use 4 numbers from 1 to 9"),
  ],
)
def test_bad_input_is_one_line(changed, message):
  model, params, prompts = case()
  given = {"lengths": LENGTHS, "steps": STEPS, "eos": NEVER, **changed}
  with pytest.raises(InputError) as error:
    generate(model, params, prompts, given.pop("lengths"), **given)
  assert str(error.value) == message


def test_bfloat16_keeps_its_cache_in_bfloat16_and_its_tokens_in_reach():
  rough = llama.Llama(LlamaConfig(**{**vars(CONFIG), "compute_dtype": "bfloat16"}))
  assert {leaf.dtype for leaf in jax.tree.leaves(rough.cache(batch=1, slots=2))} == {np.dtype(jnp.bfloat16)}
  _, params, prompts = case()
  tokens, log_probs = map(np.asarray, generate(rough, params, prompts, LENGTHS, steps=STEPS, eos=NEVER))
  assert log_probs.dtype == np.float32
  forward = jax.jit(rough.forward)
  for i, length in enumerate(LENGTHS):
    string = np.zeros((1, CONFIG.length), int)
    string[0, : length + STEPS] = [*prompts[i, :length], *tokens[i]]
    log_softmax = np.asarray(jax.nn.log_softmax(forward(params, string).logits[0, length - 1 : length - 1 + STEPS]))
    assert log_probs[i] == pytest.approx(log_softmax[np.arange(STEPS), tokens[i]], abs=0.15)
