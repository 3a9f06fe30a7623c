"""Rewrites a text so that both operands have the answers that a sampler drew.

The paper plants its spurious correlation "by inserting target tokens". Here tokens are exchanged where they stand:
no more than the wanted numbers ask for, at places drawn at random, so that the text keeps its length and, elsewhere,
its grammar. Operands are the terminals 0 (O_PT = a) and 1 (O_FT = b); positions are counted back from the text's end.

Chance comes in as uniform numbers: every call of a random generator costs seconds of compilation on a CPU, so callers
draw once for all they need.
"""

import jax.numpy as jnp


def whole(uniform, number):
  """Whole numbers 0..number-1 from uniform ones in [0, 1); number may differ by place."""
  return jnp.minimum((uniform * number).astype(jnp.int32), number - 1)


def spread_counts(order_BxL, text_BxW, counts_Bx2, counted: int):
  """Texts whose last `counted` tokens hold exactly that many of each operand.

  Args:
    order_BxL: uniform numbers, at least `counted` a row: which places change first.
    text_BxW: terminals 0, 1, ..., at least three kinds.
    counts_Bx2: of a and b; together at most `counted`.
    counted: O'.

  Returns:
    int32 [B, W].
  """
  zone = jnp.ones(counted, bool)
  tail = with_counts(order_BxL[:, :counted], text_BxW[:, ::-1][:, :counted], zone, counts_Bx2)
  return _with_tail(text_BxW, tail)


def spread_places(draws_BxN, text_BxW, places_Bx2, *, occurrence: int, farthest: int):
  """Texts in which the `occurrence`-th a and b, counted back from the end, stand exactly there.

  Args:
    draws_BxN: uniform numbers, at least `farthest` + 1 a row.
    text_BxW: terminals 0, 1, ..., at least three kinds.
    places_Bx2: positions of a's and b's, 1 being the last token; different, both at least 2 `occurrence` - 1 and at
      most `farthest`.
    occurrence: O'.
    farthest: tokens from the end that may change.

  Returns:
    int32 [B, W].
  """
  order = draws_BxN[:, 1 : 1 + farthest]
  others = occurrence - 1
  tail = text_BxW[:, ::-1][:, :farthest]
  position = jnp.arange(1, farthest + 1)
  near, far = places_Bx2.min(axis=1, keepdims=True), places_Bx2.max(axis=1, keepdims=True)
  near_is_a = places_Bx2[:, :1] == near
  before, between = position < near, (position > near) & (position < far)
  # Nearer than the nearer of the two stand its O' - 1 others, and as many of the other operand's as find room here
  # and leave enough for the stretch between the two.
  room_near, room_between = near[:, 0] - 1 - others, far[:, 0] - near[:, 0] - 1
  least, most = jnp.maximum(0, others - room_between), jnp.minimum(others, room_near)
  early = least + whole(draws_BxN[:, 0], most - least + 1)
  tail = with_counts(order, tail, before, _by_operand(near_is_a, others, early))
  # Between the two the nearer operand is free: as many as there were, if they find room beside the other's.
  late = others - early
  free = jnp.where(near_is_a, 0, 1)
  had = ((tail == free) & between).sum(axis=1)
  tail = with_counts(order, tail, between, _by_operand(near_is_a, jnp.minimum(had, room_between - late), late))
  tail = jnp.where(position == places_Bx2[:, :1], 0, jnp.where(position == places_Bx2[:, 1:], 1, tail))
  return _with_tail(text_BxW, tail)


def _by_operand(near_is_a, near_count, far_count):
  """Counts of the nearer and the farther operand as counts of a and b, [B, 2]."""
  near_count, far_count = jnp.broadcast_arrays(near_count, far_count)
  counts = jnp.stack([near_count, far_count], axis=1)
  return jnp.where(near_is_a, counts, counts[:, ::-1])


def _with_tail(text_BxW, tail_BxL):
  """The text with its last tokens replaced; the tail comes reversed."""
  kept = text_BxW[:, : text_BxW.shape[1] - tail_BxL.shape[1]]
  return jnp.concatenate([kept, tail_BxL[:, ::-1].astype(text_BxW.dtype)], axis=1)


def with_counts(order_BxL, text_BxL, zone, counts_Bx2):
  """Texts with exactly those counts of a and b inside the zone, [B, L]; tokens outside it stay.

  As few tokens change as can be. Operands beyond their count are given up, at places drawn uniformly; missing ones are
  put in at those places first, then elsewhere, uniformly too. A place that an operand gives up and none takes gets
  terminal 2 (the paper's c).

  Args:
    order_BxL: uniform numbers: which places change first.
    text_BxL: terminals 0, 1, ...
    zone: bool [L] or [B, L].
    counts_Bx2: of a and b; together no more than the zone has places.
  """
  zone = jnp.broadcast_to(zone, text_BxL.shape)
  operands = (text_BxL[:, None] == jnp.arange(2)[:, None]) & zone[:, None]  # [B, 2, L]
  kept = operands & (_rank(order_BxL[:, None], operands) < counts_Bx2[:, :, None])
  missing = counts_Bx2 - kept.sum(axis=2)
  open_BxL = zone & ~kept.any(axis=1)
  given_up = open_BxL & operands.any(axis=1)
  rank = _rank(jnp.where(given_up, order_BxL - 1, order_BxL), open_BxL)
  becomes_a = open_BxL & (rank < missing[:, :1])
  becomes_b = open_BxL & ~becomes_a & (rank < missing.sum(axis=1, keepdims=True))
  text = jnp.where(given_up, 2, text_BxL)
  return jnp.where(becomes_a, 0, jnp.where(becomes_b, 1, text))


def _rank(order, chosen):
  """Place of each chosen entry among the chosen of its row by `order`; along the last axis."""
  order = jnp.broadcast_to(order, chosen.shape)
  rank = jnp.zeros(order.shape, jnp.int32)
  # One entry after another against all: a sum over a third axis is 20 times slower on a CPU.
  for i in range(order.shape[-1]):
    rank += (order[..., i : i + 1] < order) & chosen[..., i : i + 1]
  return rank
