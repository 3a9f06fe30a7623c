"""The house's rules, read off its source: who imports whom, sizes, docstrings, and what importing costs."""

import ast
import inspect
import itertools
import json
import pathlib
import subprocess
import sys

import pytest

import finetune_wrappers as fw
from finetune_wrappers import statistics

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "finetune_wrappers"
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py"))
FOLDERS = ("finetune_wrappers", "experiments", "configs", "benchmarks", "examples", "tests")

# What each room may import of the package, itself included.
GROUND = {"types", "files", "rules"}
MIDDLE = {"models", "tasks"}
ALLOWED = {
  "types": set(),
  "files": {"types"},
  "rules": {"types"},
  "statistics": GROUND,
  "tasks": GROUND | {"tasks"},
  "models": GROUND | {"models"},
  "training": GROUND | MIDDLE | {"statistics", "training"},
  "analysis": GROUND | MIDDLE | {"statistics", "training", "analysis"},
  "reporting": GROUND | {"statistics", "reporting"},
}


def imported(source, package="finetune_wrappers"):
  """Dotted names of everything that the source imports, anywhere in it."""
  names = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
      module = ".".join([*parents, *([node.module] if node.module else [])])
      names |= {f"{module}.{alias.name}" for alias in node.names}
  return names


def imports_of(path):
  return imported((ROOT / path).read_text(), package=".".join(pathlib.PurePath(path).parent.parts))


def importers(library):
  return {path for path in SOURCES if any(name.split(".")[0] == library for name in imports_of(path))}


def rooms(names):
  return {name.split(".")[1] for name in names if name.startswith("finetune_wrappers.")}


def room_of(path):
  return pathlib.PurePath(path).parts[1].removesuffix(".py")


@pytest.mark.parametrize(
  ("source", "name"),
  [
    ("import finetune_wrappers.training.loop as x", "finetune_wrappers.training.loop"),
    ("from finetune_wrappers import training", "finetune_wrappers.training"),
    ("def f():\n  from finetune_wrappers.training.loop import Trainer", "finetune_wrappers.training.loop.Trainer"),
    ("from ..training import loop", "finetune_wrappers.training.loop"),
    ("from . import plots", "finetune_wrappers.reporting.plots"),
    ("from .plots import Panel", "finetune_wrappers.reporting.plots.Panel"),
  ],
)
def test_this_file_sees_every_way_to_import(source, name):
  assert imported(source, package="finetune_wrappers.reporting") == {name}


def test_every_room_has_its_place_in_the_order():
  assert {room_of(path) for path in SOURCES} == {*ALLOWED, "__init__"}


@pytest.mark.parametrize("path", SOURCES)
def test_imports_go_downward(path):
  names = imports_of(path)
  assert rooms(names) <= ALLOWED.get(room_of(path), set())
  assert not {name.split(".")[0] for name in names} & {"configs", "experiments", "benchmarks", "tests"}


def test_tracr_and_haiku_stop_at_the_door():
  assert importers("haiku") == {"finetune_wrappers/models/tracr_compile.py"}
  tasks = [path for path in SOURCES if room_of(path) == "tasks"]
  models = {f"finetune_wrappers/models/tracr_{part}.py" for part in ("check", "codec", "compile", "port", "program")}
  assert importers("tracr") - {*tasks} == models
  programs = {name for path in tasks for name in imports_of(path) if name.startswith("tracr.")}
  assert programs == {"tracr.rasp.rasp"}
  port = {name for name in imports_of("finetune_wrappers/models/tracr_port.py") if name.startswith("tracr.")}
  assert port == {"tracr.compiler.assemble.AssembledTransformerModel"}
  for path in (*(ROOT / "experiments").rglob("*.py"), *(ROOT / "configs").rglob("*.py")):
    assert not {"tracr", "haiku"} & {name.split(".")[0] for name in imports_of(path.relative_to(ROOT))}


def test_configs_are_numbers_and_sweep_axes_only():
  for path in sorted((ROOT / "configs").glob("*.py")):
    names = imports_of(path.relative_to(ROOT))
    assert rooms(names) <= {"types"}, path.name
    assert {name.split(".")[0] for name in names} <= {"configs", "finetune_wrappers", "ml_collections"}, path.name


def test_settings_are_known_to_nobody_and_not_to_each_other():
  for path in (ROOT / "experiments").rglob("*.py"):
    names = imports_of(path.relative_to(ROOT))
    known = {name for name in names if name.startswith("experiments.settings.")}
    assert known <= {"experiments.settings.Setting"}, path


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_are_short(folder):
  lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
  assert lengths and {name: length for name, length in lengths.items() if length > 305} == {}


def public(body):
  kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
  return [node for node in body if isinstance(node, kinds) and not node.name.startswith("_")]


@pytest.mark.parametrize("path", SOURCES)
def test_what_is_public_has_a_docstring(path):
  tree = ast.parse((ROOT / path).read_text())
  assert ast.get_docstring(tree)
  named = public(tree.body)
  for owner in [node for node in named if isinstance(node, ast.ClassDef)]:
    named += [node for node in public(owner.body) if node.name != "setup"]  # Flax's
  assert [node.name for node in named if not ast.get_docstring(node)] == []


# Neighbours of one type that may be given by place, with why a wrong order gives no wrong answer.
BY_PLACE = {
  "low, high": "an order that everyone knows",
  "allowed, pattern": "text and regular expression of a rule, both in our own source",
  "params, mask": "a product",
  "metric, score": "another order is refused",
  "batch_size, c_te": "the interface of a task; 0 or 1 string has another shape",
  "weights, chosen": "of tables inside a task",
  "weights, carries": "of tables inside a task",
  "carries, others": "of tables inside a task",
}


def neighbours(path):
  """Positional parameters of public functions beside one of the same type: {"a, b"}."""

  def kind(parameter):
    said = "" if parameter.annotation is None else ast.unparse(parameter.annotation)
    return said.strip("'\"").removesuffix(" | None")

  tree, found = ast.parse((ROOT / path).read_text()), set()
  owners = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))]
  for function in [node for owner in owners for node in owner.body if isinstance(node, ast.FunctionDef)]:
    if not function.name.startswith("_") or function.name in ("__init__", "__call__"):
      given = function.args.posonlyargs + function.args.args
      found |= {f"{a.arg}, {b.arg}" for a, b in itertools.pairwise(given) if kind(a) == kind(b) not in ("", "Any")}
  return found


def test_arguments_that_can_be_swapped_are_keyword_only():
  found = set().union(*map(neighbours, SOURCES))
  assert found - BY_PLACE.keys() == set() and "low, high" in found
  twins = {
    statistics.bootstrap_median_ratio: "numerator denominator", statistics.first_passage: "steps accuracies",
    fw.revive: "control", fw.prune: "compiled", fw.probe: "negative",
  }  # fmt: skip
  for function, names in twins.items():
    kinds = inspect.signature(function).parameters
    assert {kinds[name].kind for name in names.split()} == {inspect.Parameter.KEYWORD_ONLY}


def fresh(script):
  """What a new process prints, as JSON."""
  done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
  return json.loads(done.stdout.splitlines()[-1])


def modules(folder):
  names = (path.relative_to(ROOT).with_suffix("").parts for path in (ROOT / folder).rglob("*.py"))
  return sorted(".".join(name).removesuffix(".__init__") for name in names)


def test_importing_everything_touches_no_device():
  names = ["experiments.runner", *modules("finetune_wrappers"), *modules("experiments")]
  script = f"import json; from jax._src import xla_bridge; import {', '.join(names)}; import jax"
  assert fresh(f"{script}; print(json.dumps(list(xla_bridge._backends)))") == []
  assert fresh("import json, jax; from jax._src import xla_bridge; jax.devices();"
               " print(json.dumps(list(xla_bridge._backends)))") != []  # fmt: skip


def test_importing_the_package_costs_next_to_nothing_beyond_jax():
  script = """
import json, time, jax
begin = time.perf_counter()
import finetune_wrappers
print(json.dumps(time.perf_counter() - begin))
"""
  assert any(fresh(script) < 0.5 for _ in range(3))


def test_the_command_line_starts_without_jax():
  loaded = fresh("import json, sys, experiments.main; print(json.dumps([*sys.modules]))")
  assert "experiments.main" in loaded
  assert {"jax", "flax", "orbax", "tracr", "haiku", "matplotlib"}.isdisjoint(loaded)


def test_tasks_of_rasp_programs_load_no_compiler():
  loaded = fresh("import json, sys, finetune_wrappers.tasks.programs; print(json.dumps([*sys.modules]))")
  assert "tracr.rasp.rasp" in loaded and {"haiku", "tracr.compiler"}.isdisjoint(loaded)


def test_every_public_name_is_there_and_in_the_readme():
  script = (
    "import json, finetune_wrappers as fw; print(json.dumps({n: type(getattr(fw, n)).__name__ for n in fw.__all__}))"
  )
  readme = (ROOT / "README.md").read_text()
  names = fresh(script)
  assert len(names) > 40 and [name for name in names if f"`{name}`" not in readme] == []
