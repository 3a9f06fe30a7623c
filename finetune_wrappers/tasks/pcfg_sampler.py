"""Strings of a grammar, and windows of them, drawn on the device under jit and without recursion.

The grammar is cut at one or a few heights (a symbol's height is its longest way down to a terminal). For every
symbol at a cut, all derivations down to the next cut are enumerated once, in NumPy, into a table. A draw then is one
random table row for each symbol at each cut, and each token of a window is one lookup in the last table: text
outside the window is never written down. The paper's grammar is cut once, at j, k, l: one table has 512 rows of up
to 18 of these, the other 512 rows for j and 8192 each for k and l, of up to 27 tokens.

Rows are drawn with their exact probability where it is a multiple of 2**-16 (a row then stands there several times,
and all are as likely as each other), else with Walker's alias method, up to steps of 2**-32 / (rows of the table).
"""

import functools
import itertools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from finetune_wrappers.tasks.pcfg_grammar import Grammar
from finetune_wrappers.types import InputError, require

SHORT = ("join", "pad")

_MAX_BITS = 16  # of a table's row number: one random word serves two draws
_MAX_CELLS = 2**21  # of all tables of one cut together: they are looked up at random and should fit a cache
_FULL = 2**32  # values of the coin that decides between a row and its alias


@functools.partial(jax.jit, static_argnames=("grammar", "batch_size", "length", "short"))
def sample_windows(grammar: Grammar, key: Any, batch_size: int, *, length: int, short: str) -> tuple[Any, Any]:
  """Draws windows of `length` tokens from derived strings.

  A string of at least `length` tokens gives a window that starts at any of its len - length + 1 places, each as
  likely as another (up to 2**-32). `short` says what becomes of a shorter string:

  - "join": let X1, X2, ... be independent derivations, and n the smallest number for which X1 ... Xn together have
    at least `length` tokens. The window's start is uniform over all places of the joined string X1 ... Xn. So a
    window can contain the end of one string and the beginning of the next, or lie in the last one alone; a
    string that is long enough by itself is never joined.
  - "pad": the whole string, then pads.

  Args:
    grammar: any grammar, static.
    key: JAX random key.
    batch_size: B, static.
    length: W, static; 1 to `grammar.max_length`.
    short: "join" or "pad", static.

  Returns:
    Tokens, int32 [B, W]: a terminal's id is its place in `grammar.terminals`, a pad's is their number. And how many
    of them are text, int32 [B]: always W for "join".

  Raises:
    InputError: if `short` is neither, no string can fill the window, or `rules` are too large for tables.
  """
  require(short in SHORT, "short", short, " or ".join(SHORT))
  require(1 <= length <= grammar.max_length, "length", length, f"1 to {grammar.max_length}, the longest string's")
  copies = -(-length // grammar.min_length) if short == "join" else 1
  level, text, ends_BxC, word_B = _derive(grammar, key, batch_size, copies)
  total_B = jnp.min(jnp.where(ends_BxC >= length, ends_BxC, ends_BxC[:, -1:]), axis=1)
  places_B = 1 + jnp.maximum(total_B - length, 0).astype(jnp.uint32)
  start_B = (word_B % places_B).astype(jnp.int32)
  return _read(level, text, start_B, length), jnp.minimum(total_B, length)


@functools.partial(jax.jit, static_argnames=("grammar", "batch_size"))
def sample_strings(grammar: Grammar, key: Any, batch_size: int) -> tuple[Any, Any]:
  """Draws whole derived strings.

  Args:
    grammar: any grammar, static.
    key: JAX random key.
    batch_size: B, static.

  Returns:
    Tokens, int32 [B, `grammar.max_length`], each string followed by pads; ids as in `sample_windows`. And how many
    tokens each string has, int32 [B].

  Raises:
    InputError: if `rules` are too large for tables.
  """
  level, text, ends_BxC, _ = _derive(grammar, key, batch_size, copies=1)
  return _read(level, text, jnp.zeros(batch_size, jnp.int32), grammar.max_length), ends_BxC[:, 0]


class _Level(NamedTuple):
  """From the symbols at one cut to those at the next, or to tokens. Rows of all symbols' tables lie in one array.

  Attributes:
    strings: [rows * width], the next cut's symbols by number, each row filled up with `pad`.
    lengths: int32 [rows], symbols of a row; the last row is the pad's, and empty.
    first: int32 [symbols + 1], each symbol's first row; the last is the pad's.
    mask: int32 [symbols + 1], each symbol's number of rows, a power of two, less one.
    threshold: uint32 [rows], a row stands for itself if a coin is lower, else for its alias; None without aliases.
    alias: int32 [rows], or None.
    width, least: symbols of the longest row and of the shortest.
    most: the next cut's symbols in the longest derivation from the start symbol.
    pad: number of the next cut's symbols.
  """

  strings: np.ndarray
  lengths: np.ndarray
  first: np.ndarray
  mask: np.ndarray
  threshold: np.ndarray | None
  alias: np.ndarray | None
  width: int
  least: int
  most: int
  pad: int


class _Text(NamedTuple):
  """Drawn rows, one after another."""

  end: Any  # int32 [B, N], the place in the text after each row's last symbol
  shift: Any  # int32 [B, N], what to add to a place in the text to find it in `_Level.strings`


def _derive(grammar: Grammar, key, batch_size: int, copies: int) -> tuple[_Level, _Text, Any, Any]:
  """Draws so many strings and joins them: last level, its rows, where strings end [B, copies], a random word [B]."""
  if copies * grammar.max_length >= 2**31:
    raise InputError(f"rules: strings of {grammar.max_length} tokens are too long; use fewer than {2**31 // copies}")
  levels = _levels(grammar)
  columns = [copies, *(copies * level.most for level in levels[:-1])]
  needed = [-(-n // 2) + n * (level.alias is not None) for n, level in zip(columns, levels, strict=True)]
  # Random numbers are drawn once for all levels: their generator takes longer to compile than the rest.
  words = jax.random.bits(key, (batch_size, sum(needed) + 1), jnp.uint32)
  *words, word_Bx1 = jnp.split(words, np.cumsum(needed), axis=1)
  start_B = jnp.zeros(batch_size, jnp.int32)
  text = _draw(levels[0], words[0], jnp.zeros((batch_size, copies), jnp.int32))
  ends_BxC = text.end
  for number in range(1, len(levels)):
    text = _draw(levels[number], words[number], _read(levels[number - 1], text, start_B, columns[number]))
    ends_BxC = jnp.take_along_axis(text.end, ends_BxC - 1, axis=1)
  return levels[-1], text, ends_BxC, word_Bx1[:, 0]


def _draw(level: _Level, words, symbols_BxN) -> _Text:
  """A row for every symbol: half a random word each, and where rows have aliases, another word."""
  number = symbols_BxN.shape[1]
  halves = words[:, : -(-number // 2)]
  bits = jnp.concatenate([halves & 0xFFFF, halves >> 16], axis=1)[:, :number].astype(jnp.int32)
  rows = jnp.asarray(level.first)[symbols_BxN] + (bits & jnp.asarray(level.mask)[symbols_BxN])
  if level.alias is not None:
    itself = words[:, -number:] < jnp.asarray(level.threshold)[rows]
    rows = jnp.where(itself, rows, jnp.asarray(level.alias)[rows])
  lengths = jnp.asarray(level.lengths)[rows]
  end = jnp.cumsum(lengths, axis=1)
  return _Text(end, rows * level.width - (end - lengths))


def _read(level: _Level, text: _Text, start_B, length: int):
  """The `length` symbols from `start_B` on, int32 [B, length], and pads where the text ends earlier.

  Reads blocks as long as the shortest row, so a block sees the end of one row at most, and the next block begins in
  the same row or in the one after. The blocks are steps of a loop that carries each row's end and shift: without
  the loop, XLA on CPU would look these up again for every symbol.
  """
  block = min(level.least, length)

  def at_column(column_B):
    columns = jnp.stack([column_B, column_B + 1], axis=1)
    shifts = jnp.take_along_axis(text.shift, columns, axis=1, mode="clip")
    end = jnp.take_along_axis(text.end, columns[:, :1], axis=1, mode="clip")
    return column_B, end, shifts[:, :1], shifts[:, 1:]

  def step(state, begin):
    column_B, end_Bx1, shift_Bx1, next_shift_Bx1 = state
    place = start_B[:, None] + begin + jnp.arange(block, dtype=jnp.int32)
    found = jnp.asarray(level.strings)[place + jnp.where(place < end_Bx1, shift_Bx1, next_shift_Bx1)]
    return at_column(column_B + (place[:, 0] + block >= end_Bx1[:, 0])), found

  column_B = jnp.sum(text.end <= start_B[:, None], axis=1, dtype=jnp.int32)
  begins = jnp.arange(0, length, block, dtype=jnp.int32)
  found = jax.lax.scan(step, at_column(column_B), begins)[1]
  found = jnp.swapaxes(found, 0, 1).reshape(len(start_B), -1)[:, :length].astype(jnp.int32)
  place = start_B[:, None] + jnp.arange(length, dtype=jnp.int32)
  return jnp.where(place < text.end[:, -1:], found, level.pad)


@functools.lru_cache(maxsize=16)
def _levels(grammar: Grammar) -> tuple[_Level, ...]:
  """Tables from the start symbol to tokens: from the bottom up, each level takes the highest cut that it can."""
  top, low = grammar.heights[grammar.start], 0
  levels = []
  while low < top:
    bits, widths = _sizes(grammar, low)
    for high in range(top, low, -1):
      symbols = _symbols_at(grammar, high)
      most_bits = max(bits[symbol] for symbol in symbols)
      rows = sum(2 ** min(bits[symbol], _MAX_BITS) for symbol in symbols)
      if most_bits <= _MAX_BITS and rows * max(widths[symbol] for symbol in symbols) <= _MAX_CELLS:
        break
    else:
      raise InputError(
        f"rules: {', '.join(symbols)} have too many or too long right sides; use at most {2**_MAX_BITS} a symbol,"
        f" {_MAX_CELLS} symbols in all"
      )
    sizes = {symbol: 2 ** bits[symbol] for symbol in symbols}
    levels.insert(0, _level(grammar, sizes, low, most=widths[grammar.start]))
    low = high
  return tuple(levels)


def _symbols_at(grammar: Grammar, cut: int) -> tuple[str, ...]:
  """Where derivations stop that replace no symbol of this height or less, sorted."""
  parents = [parent for parent in grammar.alternatives if grammar.heights[parent] > cut]
  children = {child for parent in parents for side, _ in grammar.alternatives[parent] for child in side}
  return tuple(sorted(child for child in children if grammar.heights[child] <= cut)) or (grammar.start,)


def _sizes(grammar: Grammar, low: int) -> tuple[dict[str, int], dict[str, int]]:
  """Of each symbol's table down to the cut at height `low`: bits of a row's number, symbols of the longest row."""
  rows, exact, widths = (dict.fromkeys(grammar.heights, value) for value in (1, 0, 1))
  for symbol, height in grammar.heights.items():
    if height > low:
      sides = grammar.alternatives[symbol]
      rows[symbol] = sum(math.prod(rows[child] for child in side) for side, _ in sides)
      widths[symbol] = max(sum(widths[child] for child in side) for side, _ in sides)
      # Every float is a whole number of 2**-n for some n: 2 for 0.75, 55 for 0.1.
      exact[symbol] = max(
        probability.as_integer_ratio()[1].bit_length() - 1 + sum(exact[child] for child in side)
        for side, probability in sides
      )
  bits = {symbol: exact[symbol] if exact[symbol] <= _MAX_BITS else (rows[symbol] - 1).bit_length() for symbol in rows}
  return bits, widths


def _derivations(grammar: Grammar, symbols: Iterable[str], low: int) -> dict[str, list[Any]]:
  """Of these symbols and those below: (numbers of the symbols at the cut `low`, probability) of each derivation."""
  high = max(grammar.heights[symbol] for symbol in symbols)
  found: dict[str, list[Any]] = {symbol: [((number,), 1.0)] for number, symbol in enumerate(_symbols_at(grammar, low))}
  for symbol, height in grammar.heights.items():
    if low < height <= high:
      found[symbol] = [
        (tuple(itertools.chain.from_iterable(string for string, _ in parts)), p * math.prod(q for _, q in parts))
        for side, p in grammar.alternatives[symbol]
        for parts in itertools.product(*(found[child] for child in side))
      ]
  return found


def _level(grammar: Grammar, sizes: dict[str, int], low: int, most: int) -> _Level:
  """The tables of the symbols of one cut, each of the given number of rows, down to the cut at height `low`."""
  found = _derivations(grammar, sizes, low)
  rows, first, thresholds, aliases = [], [], [], []
  for symbol, size in sizes.items():
    strings, probabilities = zip(*found[symbol], strict=True)
    stands, threshold, alias = _slots(np.array(probabilities), size)
    first.append(len(rows))
    thresholds += threshold.tolist()
    aliases += (alias + len(rows)).tolist()
    rows += [strings[number] for number in stands]
  pad, width = len(_symbols_at(grammar, low)), max(map(len, rows))
  cells = np.full((len(rows) + 1, width), pad, np.min_scalar_type(pad))
  for row, string in zip(cells, rows, strict=False):
    row[: len(string)] = string
  tossed = aliases != list(range(len(rows)))
  return _Level(
    strings=cells.ravel(),
    lengths=np.array([*map(len, rows), 0], np.int32),
    first=np.array([*first, len(rows)], np.int32),
    mask=np.array([*sizes.values(), 1], np.int32) - 1,
    threshold=np.array([*thresholds, 0], np.uint32) if tossed else None,
    alias=np.array([*aliases, len(rows)], np.int32) if tossed else None,
    width=width,
    least=min(map(len, rows)),
    most=most,
    pad=pad,
  )


def _slots(probabilities: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """What stands in each of `size` rows of a table, and Walker's threshold and alias, each int64 [size].

  Weights are whole numbers, so that rounding can make no row likely that should not be: a row that is only there
  to fill up the table has threshold 0 and is nobody's alias.
  """
  threshold, alias = np.zeros(size, np.int64), np.arange(size)
  counts = probabilities * size
  if (counts == np.rint(counts)).all() and counts.sum() == size:
    return np.repeat(np.arange(len(counts)), counts.astype(np.int64)), threshold, alias
  weights = np.zeros(size, np.int64)
  weights[: len(counts)] = np.floor(counts * _FULL)
  weights[np.argmax(weights)] += size * _FULL - weights.sum()
  poor, rich = np.flatnonzero(weights < _FULL).tolist(), np.flatnonzero(weights > _FULL).tolist()
  while poor:
    row, giver = poor.pop(), rich[-1]
    threshold[row], alias[row] = weights[row], giver
    weights[giver] -= _FULL - weights[row]
    if weights[giver] <= _FULL:
      rich.pop()
    if weights[giver] < _FULL:
      poor.append(giver)
  return np.minimum(np.arange(size), len(counts) - 1), threshold, alias
