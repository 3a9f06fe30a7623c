"""The wheel: the library with the paper's tables, and none of the folders that run from a checkout."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("finetune_wrappers", "experiments", "configs")

BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"

USE = """
import importlib.util, json
import finetune_wrappers
from finetune_wrappers.reporting import paper_values
rows = [*paper_values.table3(), *paper_values.pcfg_tables()]
found = [name for name in ("experiments", "configs") if importlib.util.find_spec(name)]
print(json.dumps([finetune_wrappers.__file__, len(rows), found]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """Built from a copy, because setuptools writes beside setup.py; without network."""
  checkout, out = (tmp_path_factory.mktemp(name) for name in ("checkout", "out"))
  for folder in FOLDERS:
    shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
  for file in ("setup.py", "pyproject.toml", "LICENSE"):
    shutil.copy(ROOT / file, checkout)
  subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=checkout, capture_output=True, text=True, check=True)
  (built,) = out.glob("*.whl")
  return built


def test_the_wheel_holds_the_library_and_its_data_only(wheel):
  names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
  files = (path for path in (ROOT / "finetune_wrappers").rglob("*") if path.is_file() and path.suffix != ".pyc")
  assert sorted(names) == sorted(path.relative_to(ROOT).as_posix() for path in files)
  assert sum(name.endswith(".csv") for name in names) == 4


def test_an_unpacked_wheel_works_without_the_checkout(wheel, tmp_path):
  zipfile.ZipFile(wheel).extractall(tmp_path)
  installed = [path for path in sys.path if path.endswith("site-packages")]
  path = os.pathsep.join([str(tmp_path), *installed])  # and -S: site would add the checkout, an editable install
  done = subprocess.run(
    [sys.executable, "-S", "-c", USE],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": path},
    capture_output=True,
    text=True,
    check=True,
  )
  file, rows, found = json.loads(done.stdout)
  assert pathlib.Path(file).is_relative_to(tmp_path)
  assert rows == 2 * 4 * 7 * 4 + 2 * 3 * 3 * 4 * 8 and found == []
