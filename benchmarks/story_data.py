"""The data path of the stories: time and peak memory from a text file to batches.

    python -m benchmarks.story_data [--megabytes=1000] [--vocab_size=8192] [--threads=1]

Makes a file of random stories in a temporary folder (1 GB takes a minute and 2 GB of disk), trains a tokenizer on its
beginning, reads the file as a stream into a cache, and draws batches. Each is a process of its own, so that its peak
memory is its own. Pages of mapped files count in it though the system takes them back when it needs them: drawing
batches touches the whole cache. The targets are 1 MB/s of one core into the cache, and a peak of 600 MB without mapped
files at 1 GB of text.
"""

import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from absl import app, flags

_MEGABYTES = flags.DEFINE_integer("megabytes", 1000, "size of the text, in 10^6 bytes", lower_bound=1)
_VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 8192, "ids of the tokenizer")
_THREADS = flags.DEFINE_integer("threads", 1, "threads of the encoder", lower_bound=1)
_END = "<|endoftext|>"
_BATCHES = 200


def write_stories(path: pathlib.Path, size: int) -> None:
  """A file of at least that many bytes: stories of 60 to 200 words, drawn from 30 000, some far oftener than others."""
  draw = random.Random(0)
  words = ["".join(draw.choices("etaoinshrdlucmfwypvbgk", k=draw.randint(2, 9))) for _ in range(30_000)]
  weights = [1 / (place + 10) for place in range(len(words))]
  with path.open("w", encoding="utf-8") as file:
    while file.tell() < size:
      chosen = draw.choices(words, weights, k=130_000)
      at = 0
      while at < len(chosen):
        length = draw.randint(60, 200)
        text = " ".join(chosen[at : at + length])
        file.write(f"Features: Twist\nWords: {', '.join(chosen[at : at + 3])}\nStory: \n{text}.\n{_END}\n")
        at += length


def read_stories(path: pathlib.Path) -> Iterator[tuple[str, str, int]]:
  """Instruction, story and features of each story, one at a time."""
  lines = []
  with path.open(encoding="utf-8", newline="\n") as file:
    for line in file:
      if line.startswith(_END):
        yield "\n".join(lines[:3]), "\n".join(lines[3:]), 2
        lines = []
      else:
        lines.append(line.rstrip("\n"))


def train(folder: pathlib.Path, vocab_size: int, threads: int) -> float:
  """Trains the tokenizer; returns megabytes of text used."""
  from finetune_wrappers.tasks.stories.tokenizer import train_tokenizer

  del threads
  texts = (story for _, story, _ in read_stories(folder / "stories.txt"))
  train_tokenizer(texts, vocab_size=vocab_size, path=folder / "tokenizer.model")
  return min((folder / "stories.txt").stat().st_size, 2**26) / 1e6


def encode(folder: pathlib.Path, vocab_size: int, threads: int) -> float:
  """Builds the cache; returns megabytes of text."""
  from finetune_wrappers.tasks.stories.cache import build_cache
  from finetune_wrappers.tasks.stories.tokenizer import StoryTokenizer

  del vocab_size
  tokenizer = StoryTokenizer.load(folder / "tokenizer.model")
  documents = read_stories(folder / "stories.txt")
  return (
    build_cache(folder / "cache", documents, tokenizer, sources={}, threads=threads).manifest["counts"]["bytes"] / 1e6
  )


_DRAWN: list[object] = []  # keeps the mapped files until they are counted


def batches(folder: pathlib.Path, vocab_size: int, threads: int) -> float:
  """Draws batches of 128 packed rows of 1024; returns megabytes of tokens."""
  from finetune_wrappers.tasks.stories.batches import Batches
  from finetune_wrappers.tasks.stories.cache import TokenCache

  del vocab_size, threads
  cache = TokenCache.open(folder / "cache")
  found = Batches(cache, length=1024, batch_size=128, seed=0, packed=True)
  _DRAWN.append(found)
  return sum(found.at(step).tokens.nbytes for step in range(_BATCHES)) / 1e6


PARTS = {part.__name__: part for part in (train, encode, batches)}


def alone(name: str, folder: pathlib.Path, vocab_size: int, threads: int) -> dict[str, float]:
  """Runs a part in a process of its own: megabytes, seconds, seconds of CPU, and peak memory in megabytes."""
  command = [sys.executable, "-m", "benchmarks.story_data", f"--vocab_size={vocab_size}", f"--threads={threads}"]
  done = subprocess.run([*command, name, str(folder)], capture_output=True, text=True, check=False)
  if done.returncode:
    sys.exit(done.stderr)
  return json.loads(done.stdout.splitlines()[-1])


def measured(name: str, folder: pathlib.Path, vocab_size: int, threads: int) -> dict[str, float]:
  """Runs a part here."""
  begin = time.perf_counter()
  size = PARTS[name](folder, vocab_size, threads)
  usage = resource.getrusage(resource.RUSAGE_SELF)
  seconds, cpu = time.perf_counter() - begin, usage.ru_utime + usage.ru_stime
  status = pathlib.Path("/proc/self/status").read_text()
  mapped = int(status.split("RssFile:")[1].split()[0]) * 1.024e-3
  return {"megabytes": size, "seconds": seconds, "cpu": cpu, "peak": usage.ru_maxrss * 1.024e-3, "mapped": mapped}


def main(arguments: list[str]) -> None:
  if len(arguments) == 3:
    print(json.dumps(measured(arguments[1], pathlib.Path(arguments[2]), _VOCAB_SIZE.value, _THREADS.value)))
    return
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder)
    write_stories(path / "stories.txt", _MEGABYTES.value * 10**6)
    print(f"{_MEGABYTES.value} MB of text, {_VOCAB_SIZE.value} ids, {_THREADS.value} threads of {os.cpu_count()} cores")
    print("| part | MB | s | CPU time, s | MB/s of CPU time | peak memory, MB | of it mapped files |")
    print("|---" * 7 + "|")
    for name in PARTS:
      found = alone(name, path, _VOCAB_SIZE.value, _THREADS.value)
      rate = found["megabytes"] / found["cpu"]
      figures = [f"{found['megabytes']:.0f}", f"{found['seconds']:.1f}", f"{found['cpu']:.1f}", f"{rate:.2f}"]
      print("|", " | ".join([name, *figures, f"{found['peak']:.0f}", f"{found['mapped']:.0f}"]), "|", flush=True)


if __name__ == "__main__":
  app.run(main)
