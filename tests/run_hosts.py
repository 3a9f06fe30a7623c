"""Trains test_loop's stages as one of several hosts on loopback; run by test_hosts.py.

Arguments: workdir, number of hosts, which of them this is, port, devices of each, inner of the layout.
"""

import errno
import json
import sys

import jax

from finetune_wrappers.types import InputError


def main(workdir, number, place, port, devices, inner):
  jax.config.update("jax_num_cpu_devices", devices)
  if number > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", number, place)
  import test_loop

  from finetune_wrappers.training import hosts
  from finetune_wrappers.training.failures import Interrupted
  from finetune_wrappers.training.lanes import Layout
  from finetune_wrappers.training.store import Store

  layout = Layout(number * devices, inner)
  left = iter([False] * 4)
  try:  # told to stop on the way: what is kept is everybody's
    test_loop.trainer(Store(workdir), layout=layout, stopping=lambda: next(left, True)).run(test_loop.WANTED)
  except Interrupted as error:
    print(error)
  test_loop.trainer(Store(workdir), layout=layout).run(test_loop.WANTED)
  try:
    hosts.agree(refuse)
  except InputError as error:
    print(f"refused: {error}")
  try:
    hosts.on_first(fill)
  except OSError as error:
    print(f"errno {error.errno}")
  try:
    hosts.on_first(fail)
  except (TypeError, RuntimeError) as error:
    print(f"failed: {error}".replace("the first host: TypeError: ", ""))
  try:
    hosts.together(lambda: lose(place, number - 1))
  except (OSError, InputError) as error:
    print(f"together: {error}" if place == number - 1 or "another host" not in str(error) else "together: lost")
  try:
    hosts.check_same(place, "places")
  except InputError as error:
    print(error)
  hosts.check_same({"a": 1}, "values")
  print("flags", hosts.any_of(place == number - 1, False, True), hosts.together(lambda: "value"))
  print(json.dumps(hosts.agree(lambda: {"decided by": place})))


def refuse():
  raise InputError("workdir: is full")


def lose(place, last):
  if place == last:
    raise OSError("lost")


def fill():
  raise OSError(errno.ENOSPC, "no space")


def fail():
  raise TypeError("a mistake")


if __name__ == "__main__":
  main(sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6])
