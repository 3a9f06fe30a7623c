"""Strange values that are allowed run to the end: a few here, many with `-m fuzz`."""

import json
import shutil

import jax
import pytest
from conftest import drop_programs
from hostile import HOSTILE, changed, config_of, leaves
from hypothesis import given, settings
from hypothesis import strategies as st
from test_configs import NAMES

from experiments import runner
from finetune_wrappers.reporting.rows import read_rows
from finetune_wrappers.types import InputError


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return tmp_path_factory.mktemp("runs")


# All of it allowed, and none of it what a figure would ask for.
STRANGE = {
  "tab03_behaviour": {
    "name": "a.b-c",
    "tasks": ("counter",),
    "counter__task__num_letters": 3,
    "counter__task__vocab_size": 3,
    "counter__task__num_pads": 0,
    "seeds": (2**32 - 1,),
    "finetune__learning_rates": (1e30,),  # diverges
    "finetune__c_trs": (1.0, 0),
    "training__eval_size": 1,
    "training__batch_size": 1,
    "training__clip_norm": 0,
    "training__warmup_steps": 0,
    "lanes_per_program": 2**31 - 1,
    "checkpoint_seconds": 0,
  },
  "fig06_finetuning_curves": {
    "seeds": (5,),
    "finetune__c_trs": (1,),
    "finetune__priors": ("medium_high",),
    "finetune__mixes": (1.0,),
    "pretrain__steps": (2,),
    "pretrain__warmup_fraction": 0,
    "pretrain__eval_fractions": (0.5, 1),
    "training__eval_steps": (6,),
    "model__blocks": 1,
    "model__heads": 1,
    "model__width": 1,
    "text__spread": 0,
  },
}
STRANGER = {
  "quickstart": {
    "name": "a.b-c",
    "seeds": (2**32 - 1,),
    "finetune__learning_rates": (1e30,),  # diverges
    "finetune__c_trs": (1.0, 0),
    "reft__learning_rates": (1e-30,),
    "reft__threshold": 1,
    "training__eval_steps": (6,),
    "training__eval_size": 1,
    "training__clip_norm": 0,
    "pruning__ks": (10**6, 0),
    "pruning__scores": ("magnitude",),
    "pruning__scopes": ("token_embed",),
    "pruning__single_weights": 0,
    "pruning__histogram_ks": (2, 1),
    "pruning__random_draws": 1,
    "lanes_per_program": 2**31 - 1,
  },
  "fig08_probes": {
    "seeds": (3,),
    "finetune__priors": ("medium_high",),
    "finetune__mixes": (1.0,),
    "pretrain__steps": (1,),
    "probes__drops": (),
    "probes__prompt": "ft",
    "lanes_per_program": 2**31 - 1,
    "text__spread": 0,
  },
}


def run_to_the_end(config, workdir):
  drop_programs()  # of the config before
  shutil.rmtree(workdir / config.name, ignore_errors=True)  # rows of another config are never replaced
  folder, short, _ = runner.run(config, str(workdir))
  rows = read_rows(folder / "rows.jsonl")
  assert rows and short and (folder / "figure.png").exists()
  kept = json.loads((folder / "config.json").read_text())["config"]
  assert kept == json.loads(json.dumps(config.to_dict()))
  return rows


@pytest.mark.parametrize("name", [*STRANGE, *(pytest.param(name, marks=pytest.mark.fuzz) for name in STRANGER)])
def test_strange_values_that_are_allowed_run_to_the_end(name, workdir):
  config = changed(config_of(name), **{**STRANGE, **STRANGER}[name])
  rows = run_to_the_end(config, workdir)
  assert {row["seed"] for row in rows if row["stage"] == "finetune"} <= set(config.seeds)


def test_too_little_memory_is_one_line(monkeypatch, tmp_path):
  def exhausted(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.\nmore")

  monkeypatch.setattr(runner, "_run", exhausted)
  with pytest.raises(InputError, match=r"\Amemory: [^\n]*batch_size[^\n]*\Z"):
    runner.run(config_of("quickstart"), str(tmp_path))


@pytest.mark.fuzz
@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_planned_runs_to_the_end(name, workdir):
  config = config_of(name)
  keys = [(key, default) for key, default in leaves(config.to_dict()) if key not in ("name", "checkpoint_seconds")]

  @settings(derandomize=True, deadline=None, max_examples=10, database=None)
  @given(st.data())
  def each(data):
    key, default = data.draw(st.sampled_from(keys))
    value = data.draw(like(default))
    config_now = changed(config, **{key: value})
    try:
      runner.plan_of(config_now)
    except InputError:
      return
    run_to_the_end(config_now, workdir)

  each()


def like(default):
  """Values near the default's, so that many are allowed and few take long."""
  if isinstance(default, tuple):
    inner = like(default[0]) if default else st.integers(0, 3)
    return st.one_of(
      st.lists(inner, max_size=3).map(tuple), st.lists(st.sampled_from(default or (0,)), max_size=2).map(tuple)
    )
  if isinstance(default, bool):
    return st.booleans()
  if isinstance(default, int):
    return st.integers(0, max(8, 2 * default)) if default < 1000 else st.just(default)
  if isinstance(default, float):
    return st.sampled_from((0.0, 1e-6, default / 2, 2 * default, 0.5, 1.0, 1e30))
  return st.sampled_from((default, *(value for value in HOSTILE if isinstance(value, str))))
