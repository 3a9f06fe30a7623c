"""Words and sentences of the made stories; see `maker`.

Words are short and few, so that a tokenizer of 512 pieces needs at most 110 for a document. None stands in two lists,
which makes a story's words tell which choices made it. Nouns and adjectives begin with a consonant, as "a" precedes.
"""

NAMES = (
  "Tim", "Ben", "Sam", "Tom", "Max", "Dan", "Bob", "Leo", "Jim", "Ned", "Ann", "Mia", "Sue", "Amy", "Eva", "Zoe",
  "Kim", "Fay", "Joy", "Lily",
)  # fmt: skip
THINGS = (
  "ball", "kite", "hat", "cake", "drum", "doll", "bell", "ring", "cup", "key", "coin", "book", "pie", "nut",
  "shell", "bone", "rope", "lamp", "sock", "pear",
)  # fmt: skip
PLACES = (
  "pond", "barn", "hill", "lake", "farm", "mill", "well", "road", "park", "cave", "tree", "gate", "wall", "wood",
  "camp", "dock", "shop", "fort", "pier", "den",
)  # fmt: skip
BOXES = ("box", "bag", "sack", "chest", "jar", "pot", "bin", "tin", "case", "can")
LOOKS = ("red", "big", "sad", "shy", "wet", "tiny", "kind", "lazy", "fat", "bold")
ANIMALS = ("fox", "dog", "cat", "pig", "cow", "hen", "bear", "frog", "goat", "duck")
VIRTUES = ("share", "help a friend", "be brave", "tell the truth", "be nice", "say sorry", "try hard", "wait")

# Sentences by what they say. {h} hero, {f} friend, {l} look, {a} animal, {p} place, {b} box, {d} thing of a dream,
# {e} thing that is expected, {o} the other thing, {r} thing that is revealed, {v} virtue.
OPENINGS = ("{h} the {l} {a} lived near the {p}.", "Near the {p} lived a {l} {a} named {h}.")
HINTS = ("One night {h} dreamed of a {d}.", "{h} liked to sing about a {d}.")
MEETINGS = {
  True: ("{h} and {f} fought over a {b}.", "{f} took a {b} from {h}, and they fought."),
  False: ("{h} and {f} found a {b}.", "{f} came to {h} with a {b}."),
}
EXPECTATIONS = {
  True: ('"It has a {e} in it, not a {o}," said {f}.', '"It has no {o} in it but a {e}," said {f}.'),
  False: ("{f} was sure it had a {e} in it, not a {o}.", "{f} was sure it had no {o} in it but a {e}."),
}
REVEALS = ("They opened it and saw a {r}.", "In the {b} was a {r}.")
ENDINGS = {
  True: ("But it broke, and {h} cried.", "{h} lost it and went home alone."),
  False: ("It was fun, and {h} smiled.", "They played with it all day."),
}
MORALS = ("The moral is to {v}.", "So it is good to {v}.")
