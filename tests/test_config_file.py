"""Config files and overrides: whatever is wrong with them is one line that names the key or the file."""

import pytest

from experiments import config_file
from finetune_wrappers.types import InputError

CONFIG = """
from ml_collections import ConfigDict

def get_config(preset="quick"):
  inner = {"batch_size": 8, "momentum": 0.9, "curves": False, "extra": None}
  return ConfigDict({"name": "mine", "preset": preset, "seeds": (0, 1), "names": ("a",), "training": inner}).lock()
"""


@pytest.fixture
def place(tmp_path):
  (tmp_path / "mine.py").write_text(CONFIG)
  return f"{tmp_path / 'mine.py'}:smoke"


def loaded(place, *arguments):
  rest, overrides = config_file.split(["main", "--workdir=x", *arguments])
  assert rest == ["main", "--workdir=x"]
  return config_file.load(place, overrides)


@pytest.mark.parametrize(
  ("argument", "key", "value"),
  [
    ("--config.seeds=(7,)", "seeds", (7,)),
    ("--config.seeds=7", "seeds", (7,)),
    ("--config.seeds=3,4", "seeds", (3, 4)),
    ("--config.seeds=()", "seeds", ()),
    ("--config.names=b", "names", ("b",)),
    ("--config.name=12", "name", "12"),
    ("-config.training.batch_size=9", "training.batch_size", 9),
    ("--config.training.batch_size=many", "training.batch_size", "many"),
    ("--config.training.momentum=0", "training.momentum", 0.0),
    ("--config.training.momentum=1e-3", "training.momentum", 1e-3),
    ("--config.training.curves=true", "training.curves", True),
    ("--config.training.curves", "training.curves", True),
    ("--noconfig.training.curves", "training.curves", False),
    ("--config.training.extra=3", "training.extra", 3),
    ("--config.training.extra=word", "training.extra", "word"),
  ],
)
def test_a_value_takes_the_type_of_its_key_where_it_can(place, argument, key, value):
  config = loaded(place, argument)
  found = config[key] if "." not in key else config.training[key.split(".")[1]]
  assert found == value and type(found) is type(value)
  assert config.preset == "smoke" and config.is_locked


@pytest.mark.parametrize(
  ("arguments", "line"),
  [
    (
      ("--config.seeds[0]=3",),
      r"seeds\[0\]: is not one of the config's keys; did you mean seeds, which is set whole\?",
    ),
    (("--config.seed=3",), r"seed: is not one of [^\n\\]*; did you mean seeds\?"),
    (("--config.training.batch-size=8",), r"training.batch-size: .*did you mean training.batch_size\?"),
    (("--config.seeds.a=3",), r"seeds.a: is not one of"),
    (("--config.seeds=(0,)", "--config.seeds=(7,)"), "seeds: given twice"),
    (("--config.name=a", "--config.name=a"), "name: given twice"),
    (("--config.seeds",), "seeds: has no value; use --config.seeds=VALUE"),
    (("--config.preset=paper",), "preset: is chosen after the colon"),
  ],
)
def test_an_override_that_is_none_is_one_line(place, arguments, line):
  with pytest.raises(InputError, match=rf"\A{line}[^\n]*\Z"):
    loaded(place, *arguments)


@pytest.mark.parametrize(
  ("body", "line"),
  [
    ("1 / 0", "line 2, raises ZeroDivisionError: division by zero"),
    ("raise AssertionError", "line 2, raises AssertionError"),
    ("raise RuntimeError('boom\\nbang')", "line 2, raises RuntimeError: boom bang"),
    ("get_config()", "line 2, raises RecursionError: .*"),
    ("import sys; sys.exit(3)", "line 2, raises SystemExit: 3"),
    ("{}['abc']", "line 2, raises KeyError: 'abc'"),
    ("open('/nowhere')", "line 2, raises FileNotFoundError: .*"),
    ("x =", "line 2, raises SyntaxError: .*"),
  ],
)
def test_a_file_that_fails_is_named_with_its_line_and_error(tmp_path, body, line):
  path = tmp_path / "bad.py"
  path.write_text(f"def get_config(preset=None):\n  {body}\n")
  with pytest.raises(InputError, match=rf"\Aconfig: {path}, {line}\Z"):
    config_file.load(str(path), [])


@pytest.mark.parametrize(
  ("text", "line"),
  [
    ("x = 1", "has no function get_config"),
    ("def get_config(): return None", "returns None, not"),
    ("def get_config(): return {'name': 1}", "returns a dict, not"),
  ],
)
def test_a_file_without_a_config_is_one_line(tmp_path, text, line):
  (tmp_path / "bad.py").write_text(text)
  with pytest.raises(InputError, match=rf"\Aconfig: [^\n]*{line}[^\n]*\Z"):
    config_file.load(str(tmp_path / "bad.py"), [])
  for missing in ("none.py", ""):
    with pytest.raises(InputError, match="does not exist"):
      config_file.load(str(tmp_path / missing), [])


def test_a_config_that_refuses_its_preset_says_so_itself(tmp_path):
  (tmp_path / "own.py").write_text("from configs.quickstart import get_config")
  with pytest.raises(InputError, match=r"\Apreset: 'huge' is not one of smoke, quick, paper\Z"):
    config_file.load(f"{tmp_path / 'own.py'}:huge", [])
