"""Random draws that any record can make on its own: a hash of whole numbers, equal on every machine and version."""

_MASK = 2**64 - 1


def mixed(*numbers: int) -> int:
  """A hash of whole numbers from 0 to 2^64 - 1: 64 bits, by the finaliser of SplitMix64 after each number."""
  state = 0
  for number in numbers:
    state = (state + number + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    state ^= state >> 31
  return state


def happens(share: float, *numbers: int) -> bool:
  """An event with this probability, decided by whole numbers; never at 0, always at 1."""
  return mixed(*numbers) < share * 2**64
