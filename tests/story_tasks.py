"""Stories for tests: a task of a thousand made ones, and the same as files."""

import dataclasses

from finetune_wrappers.tasks.stories import story_files
from finetune_wrappers.tasks.stories.maker import StoryMaker
from finetune_wrappers.tasks.stories.task import StoryTask

MAKER = StoryMaker()
SIZES = {"stories": 60, "held_out": 50, "vocab_size": 512, "tokenizer_stories": 1000, "length": 128}


def task_in(root, **changed):
  return StoryTask(**{"source": MAKER, "root": root} | SIZES | changed)


def files_in(folder, *, stories=1000, held_out=100):
  """Paths of a text file of the split train and a JSON shard to hold out."""
  paths = folder / "a.txt", folder / "b.json"
  story_files.write_text(paths[0], (MAKER.record("train", i) for i in range(stories)))
  story_files.write_json(
    paths[1], (dataclasses.replace(MAKER.record("valid", i), sentence="") for i in range(held_out))
  )
  return tuple(map(str, paths))


def texts(task, split, protocol="none"):
  """Each document of a split as text."""
  cache = task.cache(split, protocol=protocol)
  return [task.tokenizer.decode(cache.document(i)) for i in range(len(cache))]
