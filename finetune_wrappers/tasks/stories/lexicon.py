"""Words and sentences of the made stories; see `maker`.

Words are short and few, so that most become one piece of a tokenizer of 512, of which 256 are bytes. None stands in two
lists, so a story's words tell which choices made it. Nouns and adjectives begin with a consonant, as "a" precedes.
"""

# Ten each: the sum of their numbers, modulo ten, decides the split.
NAMES = ("Tim", "Ben", "Sam", "Tom", "Max", "Ann", "Mia", "Sue", "Kim", "Lily")
THINGS = ("ball", "kite", "hat", "cake", "doll", "bell", "ring", "book", "lamp", "coin")
PLACES = ("pond", "barn", "hill", "lake", "farm", "mill", "road", "park", "tree", "wall")
BOXES = ("box", "bag", "sack", "chest", "jar", "pot")
LOOKS = ("red", "big", "sad", "shy", "tiny", "kind")
ANIMALS = ("fox", "dog", "cat", "pig", "bear", "hen")
VIRTUES = ("share", "help", "wait", "try")

# Sentences by what they say. {h} hero, {f} friend, {l} look, {a} animal, {p} place, {b} box, {d} thing of a dream or
# song, {e} thing that is expected, {o} the other thing, {r} thing that is revealed, {v} virtue.
OPENINGS = ("{h} the {l} {a} lived near the {p}.", "Near the {p} lived {h}, a {l} {a}.")
HINTS = ("{h} dreamed of a {d}.", "{h} sang of a {d}.")
MEETINGS = {
  True: ("{h} and {f} fought over a {b}.", "{f} fought {h} for a {b}."),
  False: ("{h} and {f} found a {b}.", "{f} gave {h} a {b}."),
}
EXPECTATIONS = {
  True: ('"It has a {e}, not a {o}," said {f}.', '"It has a {e} and no {o}," said {f}.'),
  False: ("{f} was sure it had a {e}, not a {o}.", "{f} was sure it had a {e} and no {o}."),
}
REVEALS = ("They saw a {r} in it.", "In it was a {r}.")
# Said after some reveals.
REMARKS = {
  True: ("What a surprise!", "{f} was wrong."),
  False: ("No surprise!", "{f} was right."),
}
ENDINGS = {
  True: ("But {h} lost it.", "It broke and {h} cried."),
  False: ("They played with it.", "{h} was happy."),
}
MORALS = ("Always {v}.", "It is good to {v}.")
