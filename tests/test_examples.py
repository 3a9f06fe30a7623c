"""The examples run as they stand and say what their comments say."""

import pathlib
import runpy

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_an_example_has_at_most_forty_lines(path):
  assert len(path.read_text().splitlines()) <= 40


def test_ones_own_program_compiled_answers_held_out_strings(capsys):
  assert runpy.run_path(str(FOLDER / "own_program.py"))["accuracy"] == 1
  assert capsys.readouterr().out == "Acc. O_PT 100%, Acc. O_FT 0%\n"
