"""Compilation made cheap: one cache for the whole run, and little optimisation unless tests train for minutes."""

import gc
import os
import shutil
import sys
import tempfile

import pytest

_CACHE = "JAX_COMPILATION_CACHE_DIR"
_made = pytest.StashKey[str]()


def pytest_configure(config):
  """Before JAX is imported, and before xdist starts its workers, which inherit the environment."""
  if _CACHE not in os.environ:
    config.stash[_made] = os.environ[_CACHE] = tempfile.mkdtemp(prefix="jax-cache-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
  if {"quick", "slow"}.isdisjoint(config.option.markexpr.replace("not quick", "").replace("not slow", "").split()):
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")


def pytest_unconfigure(config):
  """Removes what this run made."""
  if _made in config.stash:
    shutil.rmtree(config.stash[_made], ignore_errors=True)


def drop_programs():
  """Each holds memory mappings, of which Linux allows a process 65 530; beyond, XLA crashes."""
  if jax := sys.modules.get("jax"):
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="module", autouse=True)
def _programs_are_dropped():
  yield
  drop_programs()
