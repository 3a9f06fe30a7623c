"""Text from a model, token by token, with a cache of keys and values."""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from finetune_wrappers.rules import NOT_NEGATIVE, SHARE_ABOVE_0, SIZE
from finetune_wrappers.types import InputError, Params, require


class Cached(Protocol):
  """What `generate` needs: `config.length` and `.vocab_size`, an empty `cache`, and `cached`, which reads tokens."""

  config: Any

  def cache(self, *, batch: int, slots: int) -> Any:
    """See `llama.Llama.cache`."""
    ...

  def cached(self, params: Params, tokens_BxT: Any, *, at: Any, start_B: Any, cache: Any) -> tuple[Any, Any]:
    """See `llama.Llama.cached`."""
    ...


def generate(
  model: Cached,
  params: Params,
  prompts: Any,
  lengths: Any,
  *,
  steps: int,
  eos: int,
  temperature: float = 0.0,
  top_p: float = 1.0,
  key: Any = None,
) -> tuple[Any, Any]:
  """Continues prompts until `eos`, or for `steps` tokens.

  Works under jit, vmap over params and key, and lax.cond; the model and what stands after the star, but for `key`, are
  static there. Compiles once for each shape of prompts, `steps`, and whether it samples and by `top_p`.

  Args:
    model: such as a Llama; hashable.
    params: of the model.
    prompts: int [B, P], each in the first `lengths` places of its row; what follows is not read.
    lengths: int [B], 1 to P. Neither these nor token ids are checked where traced.
    steps: most tokens to write; P + steps may not pass `config.length`.
    eos: the token that ends a text; of no vocabulary, such as V, to write all steps.
    temperature: logits are divided by it; 0 takes the likeliest token, the first of equals.
    top_p: draws only from the likeliest tokens, as few as together have this probability, and their equals.
    key: random key, needed where the temperature is not 0.

  Returns:
    (tokens int32 [B, steps], eos after the end; log-probabilities float32 [B, steps], of the model itself, whatever
    temperature and top_p; that of the first eos is there, and 0 follows).

  Raises:
    InputError: for prompts that do not fit, and for settings out of range.
  """
  for field, rule, value in (
    ("steps", SIZE, steps), ("temperature", NOT_NEGATIVE, temperature), ("top_p", SHARE_ABOVE_0, top_p),
  ):  # fmt: skip
    rule.check(field, value)
  batch, longest = np.shape(prompts)
  most = model.config.length
  fits = longest + steps <= most
  require(fits, "prompts", f"{longest} tokens and {steps} steps", f"{most} or fewer together, the model's length")
  if not isinstance(lengths, Tracer):
    lengths = np.asarray(lengths)
    fine = lengths.shape == (batch,) and lengths.min() >= 1 and lengths.max() <= longest
    require(fine, "lengths", lengths.tolist(), f"{batch} numbers from 1 to {longest}")
    if not isinstance(prompts, Tracer):
      read = np.asarray(prompts)[np.arange(longest) < lengths[:, None]]
      most = model.config.vocab_size - 1
      fits = read.min() >= 0 and read.max() <= most
      require(fits, "prompts", f"ids from {read.min()} to {read.max()}", f"0 to {most}, those of the vocabulary")
  if temperature and key is None:
    raise InputError("key: missing; give a random key, or temperature 0")
  sampled = (key, temperature, top_p if top_p < 1 else None) if temperature else None
  return _generate(model, params, jnp.asarray(prompts), jnp.asarray(lengths), sampled, eos, steps=steps)


@functools.partial(jax.jit, static_argnames=("model", "steps"))
def _generate(model: Cached, params: Params, prompts: Any, lengths: Any, sampled: Any, eos: Any, *, steps: int):
  batch, longest = prompts.shape
  # Prompts end together, so that all strings write to one slot at a time.
  start_B = longest - lengths
  places = jnp.arange(longest) - start_B[:, None]
  # Before a string begins stands a token that is one, whatever the caller filled up with: 0 times NaN would spread.
  prompts = jnp.where(places < 0, 0, jnp.take_along_axis(prompts, places % longest, axis=1))

  def write(state, logits, step):
    """The state with one more token a string, drawn from these logits."""
    ended, tokens, log_probs = state
    token = jnp.where(ended, eos, _choose(logits, sampled, step)).astype(jnp.int32)
    log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], axis=1)[:, 0]
    log_probs = log_probs.at[:, step].set(jnp.where(ended, 0.0, log_prob))
    return ended | (token == eos), tokens.at[:, step].set(token), log_probs

  def advance(carried):
    step, state, cache = carried
    last = jax.lax.dynamic_slice_in_dim(state[1], step - 1, 1, axis=1)
    logits, cache = model.cached(params, last, at=longest + step - 1, start_B=start_B, cache=cache)
    return step + 1, write(state, logits, step), cache

  logits, cache = model.cached(
    params, prompts, at=0, start_B=start_B, cache=model.cache(batch=batch, slots=longest + steps - 1)
  )
  state = jnp.zeros(batch, bool), jnp.full((batch, steps), eos, jnp.int32), jnp.zeros((batch, steps), jnp.float32)
  carried = jnp.int32(1), write(state, logits, 0), cache
  _, state, _ = jax.lax.while_loop(lambda carried: (carried[0] < steps) & ~carried[1][0].all(), advance, carried)
  return state[1:]


def _choose(logits, sampled, step):
  if sampled is None:
    return logits.argmax(-1)
  key, temperature, top_p = sampled
  return jax.random.categorical(jax.random.fold_in(key, step), kept(logits / temperature, top_p))


def kept(logits, top_p):
  """The logits [..., V] of the likeliest tokens that together have probability `top_p`, -inf elsewhere; None: all.

  Tokens that are as likely as the last of these are kept too.
  """
  if top_p is None:
    return logits
  # Sorting 32 x 32000 logits took eight times as long as the 15M model's step. Bits of positive floats are in the
  # floats' order, so 31 halvings find the largest threshold that leaves enough.
  probs = jax.nn.softmax(logits)
  bits = jax.lax.bitcast_convert_type(probs, jnp.int32)
  most = np.float32(1).view(np.int32) + 1  # leaves nothing

  def halve(_, ends):
    low, high = ends
    middle = (low + high) // 2
    enough = jnp.where(bits >= middle, probs, 0).sum(-1, keepdims=True) >= top_p
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  none = jnp.zeros((*logits.shape[:-1], 1), jnp.int32)
  least, _ = jax.lax.fori_loop(0, 31, halve, (none, none + most))
  return jnp.where(bits >= least, logits, -jnp.inf)
