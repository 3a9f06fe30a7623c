"""The contract of rows: what is let in, that files come back as they were written, and what a bad file says."""

import json
import math
import os
import re
import stat

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_wrappers.files import write_atomically
from finetune_wrappers.reporting import rows as rows_module
from finetune_wrappers.reporting.rows import REQUIRED, group, make_row, read_rows, select, write_rows
from finetune_wrappers.types import InputError

GOOD = {
  "experiment": "tab03_behaviour",
  "setting": "tracr",
  "task": "counter",
  "stage": "finetune",
  "metric": "acc_pt",
  "step": 10,
  "seed": 0,
  "value": 0.5,
}

names = st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True).filter(lambda n: n not in (*REQUIRED, "diverged"))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@st.composite
def any_rows(draw):
  diverged = draw(st.booleans())
  metric = draw(st.sampled_from(["acc_pt", "loss"]))
  value = None if diverged else draw(st.floats(0, 1) if metric == "acc_pt" else st.floats(-1e9, 1e9))
  swept = draw(st.dictionaries(names, scalars, max_size=4))
  return make_row(
    experiment=draw(st.text(min_size=1)),
    setting=draw(st.sampled_from(["tracr", "pcfg", "my_own2"])),
    task="counter",
    stage="finetune",
    metric=metric,
    step=draw(st.integers(0)),
    seed=draw(st.integers(0, 2**40)),
    value=value,
    diverged=diverged,
    **swept,
  )


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_rows(), max_size=4))
def test_rows_come_back_as_they_were_written(tmp_path, rows):
  path = tmp_path / "rows.jsonl"
  write_rows(path, rows)
  assert read_rows(path) == rows
  lines = path.read_bytes().split(b"\n")
  assert lines.pop() == b"" and len(lines) == len(rows)
  for line, row in zip(lines, rows, strict=True):
    assert line == json.dumps(row, sort_keys=True, separators=(",", ":")).encode()


def test_a_row_has_the_swept_values_and_plain_types():
  row = make_row(**{**GOOD, "value": np.float32(0.25), "seed": np.int64(3)}, c_tr=jnp.float32(0.5), unit="weight")
  assert row == {**GOOD, "value": 0.25, "seed": 3, "c_tr": 0.5, "unit": "weight"}
  assert {type(field) for field in row.values()} == {str, int, float}
  assert "diverged" not in row


def test_a_diverged_row_has_a_null_value():
  row = make_row(**{**GOOD, "value": None}, diverged=True)
  assert row["value"] is None and row["diverged"] is True


@pytest.mark.parametrize(
  ("field", "bad"),
  [
    ("experiment", ""),
    ("task", 3),
    ("setting", "two words"),
    ("step", -1),
    ("step", 1.5),
    ("seed", True),
    ("value", None),
    ("value", math.nan),
    ("value", math.inf),
    ("value", 98.3),
    ("value", -0.01),
    ("value", "0.5"),
    ("value", True),
    ("c_tr", [0.1]),
    ("c_tr", math.nan),
    ("learning_rate", np.ones(2)),
  ],
)
def test_a_bad_field_is_named_in_one_line(field, bad):
  with pytest.raises(InputError, match=rf"\A{field}: [^\n]+\Z"):
    make_row(**{**GOOD, field: bad})


def test_a_diverged_row_with_a_value_is_refused():
  with pytest.raises(InputError, match="value"):
    make_row(**GOOD, diverged=True)


def test_a_metric_that_is_no_accuracy_may_be_any_number():
  assert make_row(**{**GOOD, "metric": "loss", "value": 7})["value"] == 7.0


@pytest.mark.parametrize(
  "line",
  [
    '{"experiment":"e","seed',  # cut off
    "",
    "[1,2]",
    "null",
    "accuracy 0.5",
    '{"experiment":"e"}',
    json.dumps({**GOOD, "value": math.nan}),
    json.dumps({**GOOD, "c_tr": {"deep": 1}}),
    "[" * 100_000,
  ],
)
def test_a_foreign_line_is_named_by_file_and_number(tmp_path, line):
  path = tmp_path / "rows.jsonl"
  path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
  with pytest.raises(InputError, match=rf"\A{re.escape(str(path))}:2: [^\n]+\Z"):
    read_rows(path)


def test_any_truncation_is_noticed_or_leaves_whole_rows(tmp_path):
  path = tmp_path / "rows.jsonl"
  rows = [make_row(**{**GOOD, "seed": seed}) for seed in range(2)]
  write_rows(path, rows)
  data = path.read_bytes()
  first, second = data.splitlines(keepends=True)
  whole = {b"": 0, first[:-1]: 1, first: 1, (first + second)[:-1]: 2, data: 2}
  for length in range(len(data) + 1):
    path.write_bytes(data[:length])
    if data[:length] in whole:
      assert read_rows(path) == rows[: whole[data[:length]]]
    else:
      with pytest.raises(InputError, match="rows.jsonl:[12]: "):
        read_rows(path)


def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path):
  with pytest.raises(InputError, match="rows.jsonl"):
    read_rows(tmp_path / "rows.jsonl")
  (tmp_path / "binary").write_bytes(b"\x89PNG\xff")
  with pytest.raises(InputError, match="binary"):
    read_rows(tmp_path / "binary")


def test_writing_makes_the_folder_and_equal_rows_give_equal_bytes(tmp_path):
  first, second = tmp_path / "a" / "b" / "rows.jsonl", tmp_path / "rows.jsonl"
  row = make_row(**GOOD, c_tr=1.0)
  write_rows(first, [row])
  write_rows(second, [dict(reversed(row.items()))])
  assert first.read_bytes() == second.read_bytes()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
  path = tmp_path / "rows.jsonl"
  write_rows(path, [make_row(**GOOD)])
  before = path.read_bytes()
  with pytest.raises(InputError):
    write_rows(path, [make_row(**GOOD), {**GOOD, "value": 3}])

  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(rows_module.os, "replace", full)
  with pytest.raises(OSError, match="space"):
    write_rows(path, [])
  assert path.read_bytes() == before and os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_written_file_is_as_readable_as_any_other(tmp_path):
  (tmp_path / "plain").write_text("")
  write_atomically(tmp_path / "atomic", b"")
  modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")]
  assert modes[0] == modes[1]


def test_select_and_group_keep_order():
  rows = [
    make_row(**{**GOOD, "seed": seed, "task": task}, c_tr=c) for c in (1.0, 0.0) for task in "ba" for seed in (0, 1)
  ]
  assert select(rows, task="a", c_tr=0) == rows[6:]
  assert select(rows, seed=(1,), c_tr=[0.0, 1.0], task={"b"}) == [rows[1], rows[5]]
  assert select(rows, k=3) == [] and select(rows, k=None) == rows == select(rows)
  groups = group(rows, "c_tr", "task", "k")
  assert list(groups) == [(1.0, "b", None), (1.0, "a", None), (0.0, "b", None), (0.0, "a", None)]
  assert [row for members in groups.values() for row in members] == rows
