"""Programs kept in the workdir change no number, and whatever happens to their folder ends no run."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from configs import pcfg_common, quickstart
from experiments import compiled
from finetune_wrappers.types import InputError

SCRIPT = pathlib.Path(__file__).with_name("run_compiled.py")


def start(*arguments):
  environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
  environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PLATFORMS": "cpu"}
  # As this suite has it: a warning that nobody deals with is an error.
  command = [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)]
  environment["PYTHONPATH"] = str(SCRIPT.parents[1])
  return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process):
  out, said = process.communicate(timeout=300)
  assert process.returncode == 0, said
  return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  root = tmp_path_factory.mktemp("compiled")
  alone = start(root)
  together = [start(root, "shared") for _ in range(2)]
  return {**result(alone), "first": result(together[0]), "second": result(together[1])}


@pytest.mark.parametrize("case", ["auto", "cold", "warm", "damaged", "unwritable", "full", "first", "second"])
def test_the_same_numbers_come_out_to_the_bit(found, case):
  assert found[case]["checksum"] == found["off"]["checksum"]


def test_a_second_start_reads_what_the_first_compiled(found):
  assert found["cold"]["hits"] == 0 and found["warm"]["hits"] > 0
  assert found["left"] is None, "nothing stays switched on after a run"


def test_a_cpu_has_to_be_asked(found):
  assert found["untouched"] and found["auto"]["hits"] == 0


@pytest.mark.parametrize(
  ("case", "words"), [("damaged", "reading"), ("unwritable", "NotADirectory"), ("full", "writing")]
)
def test_a_folder_that_fails_is_told_and_no_more(found, case, words):
  assert any(words in text for text in found[case]["warned"]) and found[case]["hits"] == 0


def test_the_users_own_folder_is_left_as_it_is(monkeypatch, tmp_path):
  own = jax.config.jax_compilation_cache_dir
  assert own, "tests/conftest.py sets one"
  monkeypatch.setattr(compiled, "_use", None)
  with compiled.reused("on", str(tmp_path)):
    assert jax.config.jax_compilation_cache_dir == own


def test_choices():
  for config in (quickstart.get_config("smoke"), pcfg_common.pcfg_config("x", "smoke", measures=(), report="")):
    assert config.compilation_cache == "auto"
  with (
    pytest.raises(InputError, match="compilation_cache: 'sometimes' .*auto, on, off"),
    compiled.reused("sometimes", ""),
  ):
    pass
