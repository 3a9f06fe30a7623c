"""The command: bad input is one line with exit code 2; help is quick."""

import pathlib
import signal
import subprocess
import sys
import time

import pytest
from absl import flags
from absl.testing import flagsaver
from etils import epath

from configs import quickstart, tab03_behaviour
from experiments import main, runner
from experiments.measures import maps, pruning
from experiments.plan import plans
from finetune_wrappers.types import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]


def _command(*flags):
  return subprocess.run(
    [sys.executable, "-m", "experiments.main", *flags], cwd=ROOT, capture_output=True, text=True, timeout=300
  )


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (("--config=configs/quickstart.py:smoke", "--config.nokey=1"), ("nokey", "configs/common.py")),
    (("--config=configs/quickstart.py:huge",), ("preset", "smoke, quick, paper")),
    (("--config=configs/none.py:smoke",), ("does not exist", "configs/<name>.py")),
    (("--config=configs/quickstart.py:smoke", "--config.training.steps=many"), ("training.steps", "many")),
    (("--config=configs/quickstart.py:smoke", "--workdir=/dev/null/x"), ("workdir", "writable")),
    (("--config=configs/quickstart.py:smoke", "--config.preset=paper"), ("preset", "FILE:PRESET")),
    (("surplus",), ("surplus", "--config")),
    ((), ("config", "missing")),
    (("--nosuch=1",), ("nosuch",)),
  ],
)
def test_bad_flags_are_one_line_and_exit_2(flags, words):
  done = _command(*flags)
  assert done.returncode == 2
  assert done.stdout == ""
  assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
  assert all(word in done.stderr for word in words), done.stderr


def test_bad_value_found_while_planning_exits_2_without_training(tmp_path):
  flags = ("--config=configs/quickstart.py:smoke", "--config.finetune.c_trs=(1.5,)", f"--workdir={tmp_path}")
  done = _command(*flags)
  assert done.returncode == 2 and "finetune.c_trs: 1.5" in done.stderr and "0 to 1" in done.stderr
  assert not list(tmp_path.iterdir())


def _checkpoints(workdir):
  return [int(path.name) for path in workdir.glob("cohorts/*/*") if path.name.isdigit()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_by_convention_and_keeps_a_checkpoint(number, tmp_path):
  command = [sys.executable, "-m", "experiments.main", "--config=configs/quickstart.py:smoke", f"--workdir={tmp_path}"]
  command += ["--config.training.steps=1000000", "--config.training.eval_steps=(0,1000000)"]
  command += ["--config.checkpoint_seconds=0.1"]
  with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
    deadline = time.monotonic() + 300
    while not _checkpoints(tmp_path) and time.monotonic() < deadline:
      time.sleep(0.2)
    before = max(_checkpoints(tmp_path))
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
  assert process.returncode == 128 + number
  assert "Traceback" not in said and "the same command goes on from there" in said
  assert max(_checkpoints(tmp_path)) > before  # what it was at is saved too


def test_help_comes_without_waiting_for_jax():
  seconds = []
  for _ in range(3):
    begin = time.monotonic()
    done = _command("--help")
    seconds.append(time.monotonic() - begin)
    assert "--workdir" in done.stdout and "Traceback" not in done.stderr
    assert "--config.name=OTHER" in done.stdout and "experiments.redraw" in done.stdout
  assert min(seconds) < 3


@pytest.mark.parametrize(
  ("field", "value", "words"),
  [
    ("tasks", ("chess",), ("chess", "counter, max_identifier")),
    ("seeds", (), ("seeds", "empty")),
    ("reading", "loud", ("reading", "literal")),
    ("setting", "opera", ("setting", "tracr")),
    ("measures", ("nope",), ("measures", "nope", "behaviour")),
    ("report", "nope", ("report: ", "nope", "quickstart")),
  ],
)
def test_bad_config_values_name_field_and_allowed(field, value, words, tmp_path):
  config = quickstart.get_config("smoke")
  config.unlock()
  config[field] = value
  with pytest.raises(InputError) as caught:
    runner.run(config, str(tmp_path))
  assert all(word in str(caught.value) for word in words)
  assert "\n" not in str(caught.value)


def test_q_that_no_string_can_satisfy_is_refused():
  config = tab03_behaviour.get_config("smoke")
  config.unlock()
  config.max_identifier.task.q = 1
  with pytest.raises(InputError, match=r"\Amax_identifier.task.q: no string .* use 2 to 19"):
    plans(config)


def test_inputs_of_maps_and_pruning_are_checked_before_training():
  config = quickstart.get_config("smoke")
  config.unlock()
  for string, words in (("abczzz", "vocabulary"), ("ab", "use 6"), ("abc12", "letters")):
    config.maps.inputs.counter = (string,)
    with pytest.raises(InputError, match=rf"\Amaps.inputs.counter: [^\n]*{words}"):
      maps.stages(plans(config)[0])
  config.maps.inputs.counter = ()
  for scope in ("luck", "blocks_9", "blocks_0/attn/qkv"):
    config.pruning.scopes = (scope,)
    with pytest.raises(InputError, match=rf"\Apruning.scopes: '{scope}'"):
      pruning.stages(plans(config)[0])
  config.pruning.scores = ("luck",)
  with pytest.raises(InputError, match="pruning.scores: 'luck'"):
    plans(config)


def test_weight_names_are_the_papers():
  labels = ["one", "tokens:b", "answer:3"]
  assert pruning.weight_name("blocks_1/attn/value/kernel", (0, 0), labels) == "B1 W_V[one,0]"
  assert pruning.weight_name("blocks_1/attn/key/kernel", (1, 1), labels) == "B1 W_K[tokens:b,1]"
  assert pruning.weight_name("blocks_2/mlp/linear_2/bias", (2,), labels) == "B2 b_out[answer:3]"
  assert pruning.weight_name("blocks_0/mlp/linear_1/bias", (2,), labels) == "B0 b_in[2]"
  assert pruning.weight_name("pos_embed/embedding", (5, 0), labels) == "position[5,one]"


def test_what_is_being_written_is_not_listed_as_a_result(tmp_path, monkeypatch, capsys):
  for name in ("rows.jsonl", ".config.json.0123456789ab.tmp"):
    (tmp_path / name).write_text("")
  monkeypatch.setattr(main.quiet, "hush_failed_saves", lambda: None)
  monkeypatch.setattr(runner, "run", lambda *_: runner.Ran(epath.Path(tmp_path), "short", []))
  with flagsaver.flagsaver():
    rest = flags.FLAGS(["main", "--config=configs/quickstart.py:smoke"])
    main.main([], rest)
  assert capsys.readouterr().out == f"short\n{tmp_path / 'rows.jsonl'}\n"


@pytest.mark.parametrize(("arguments", "code"), [((), 130), ((signal.SIGTERM,), 143)])
def test_an_interruption_ends_without_pythons_own_end(arguments, code, monkeypatch, capsys):
  """Which crashed with SIGSEGV in JAX's threads where it had cut off a compilation."""

  def interrupted(*_, **__):
    raise KeyboardInterrupt(*arguments)

  ended = []
  monkeypatch.setattr(main.app, "run", interrupted)
  monkeypatch.setattr(main.os, "_exit", ended.append)
  monkeypatch.setattr(sys, "argv", ["main"])
  main.run()
  assert ended == [code] and capsys.readouterr().err.startswith("interrupted; ")


def test_flags_of_a_file_count_too(tmp_path):
  (tmp_path / "flags").write_text("--config=configs/quickstart.py:smoke\n--config.seeds=(0,)\n")
  done = _command(f"--flagfile={tmp_path / 'flags'}", "--config.seeds=(1,)")
  assert done.returncode == 2 and done.stderr.startswith("error: seeds: given twice")
  done = _command("--flagfile=/nowhere")
  assert done.returncode == 2 and done.stderr.count("\n") == 1 and "/nowhere" in done.stderr


def test_a_run_that_diverges_is_left_out_and_listed_and_the_command_ends_with_1(tmp_path):
  flags = ("--config=configs/tab03_behaviour.py:smoke", "--config.tasks=('counter',)", f"--workdir={tmp_path}")
  done = _command(*flags, "--config.finetune.learning_rates=(0.001,1e30)", "--config.seeds=(0,)")
  assert done.returncode == 1 and "Traceback" not in done.stderr
  listed = done.stderr.splitlines()[-1]
  assert listed.startswith("error: diverged and left out: ") and "learning_rate=1e+30" in listed
  assert "0.001" not in listed and "summary.md" in done.stdout
