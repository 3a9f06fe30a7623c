"""Every key of every config, given anything: one line before anything is compiled, or it is used as it is.

Strange values that are allowed run to the end: a few here, many with `-m fuzz`.
"""

import importlib
import json
import math

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from test_configs import NAMES

from experiments import runner
from finetune_wrappers.reporting.rows import read_rows
from finetune_wrappers.training.stages import describe
from finetune_wrappers.types import InputError, canonical_json

# Wrong types, wrong ranges, and what is right for some key.
HOSTILE = (
  *(None, True, False, 0, 1, 2, 7, -1, -3, 10**6, 10**9, 10**30, 0.5, 1.0, 3.7, -0.5, 1e300, 1e-300),
  *(math.nan, math.inf, -math.inf, 1 + 2j, b"x", [], [0], {}, {"a": 1}, {1, 2}, len),
  *("", "12", "counter", "random", "blocks", "stages", "../x", "a\nb", "\0", "x" * 300),
  *((), (0,), (1,), (0, 1), (1, 1), (-1,), (10**30,), (True,), (None,), ({},), ([],), ((0, 1),), (3.7,), (0.5,)),
  *(
    (1.0,),
    (0.25, 0.75),
    (0.5, math.nan),
    (math.inf,),
    ("a",),
    ("a", "a"),
    ("counter", "index"),
    ("x" * 300,),
    (b"x",),
  ),
)
COMPILED: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def _count_compilations():
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: COMPILED.append(event) if "compile" in event or "trace" in event else None
  )


def config_of(name):
  return importlib.import_module(f"configs.{name}").get_config("smoke")


def leaves(section, prefix=""):
  """Dotted key and value of every key that is no section."""
  for name, value in section.items():
    if isinstance(value, dict):
      yield from leaves(value, f"{prefix}{name}.")
    else:
      yield prefix + name, value


def changed(config, **values):
  """A copy with other values, whatever their type; `__` in a key stands for a dot."""
  found = config.to_dict()
  for key, value in values.items():
    *path, last = key.replace("__", ".").split(".")
    section = found
    for part in path:
      section = section[part]
    section[last] = value
  return ConfigDict(found, type_safe=False)


def same_kind(value, default):
  """Whether a value is of the default's type; a float's may be whole."""
  if isinstance(default, tuple):
    return isinstance(value, tuple) and all(same_kind(v, d) for v in value for d in default[:1])
  if isinstance(default, float):
    return type(value) in (int, float) and math.isfinite(value)
  return type(value) is type(default)


def check(config, key, default, value):
  """Plans with that value: one line that names the key, or a plan of just this value."""
  given_one = changed(config, **{key: value})
  before = repr(given_one.to_dict())
  compiled = len(COMPILED)
  try:
    planned = runner.plan_of(given_one)
  except InputError as error:
    text = str(error)
    assert key.split(".")[-1] in text and "\n" not in text and len(text) < 2000, text
    return
  finally:
    assert len(COMPILED) == compiled
  assert same_kind(value, default), (key, value)
  assert repr(given_one.to_dict()) == before and all(plan.config is given_one for plan in planned.plans)


@pytest.mark.parametrize("setting", ["tracr", "pcfg"])
def test_no_key_takes_a_value_of_another_type_or_range(setting):
  seen = set()
  for name in NAMES:
    config = config_of(name)
    for key, default in leaves(config.to_dict()):
      figures_own = default if key in ("measures", "report", "tasks") else None
      if config.setting == setting and (key, figures_own) not in seen:
        seen.add((key, figures_own))
        for value in HOSTILE:
          check(config, key, default, value)


_SCALARS = st.one_of(
  st.none(), st.booleans(), st.integers(), st.integers(0, 20), st.floats(), st.floats(0, 1), st.text(max_size=5)
)
_VALUES = st.one_of(_SCALARS, st.lists(_SCALARS, max_size=3).map(tuple), st.lists(_SCALARS, max_size=2))


@pytest.mark.parametrize("name", NAMES)
def test_any_value_of_any_key_is_refused_in_one_line_or_planned(name):
  config = config_of(name)
  keys = list(leaves(config.to_dict()))

  @settings(derandomize=True, deadline=None, max_examples=60, database=None)
  @given(st.sampled_from(keys), _VALUES)
  def each(pair, value):
    check(config, *pair, value)

  runner.plan_of(config)
  each()


@pytest.mark.parametrize("name", ["quickstart", "fig05_behaviour"])
def test_missing_and_unknown_keys_and_sections_that_are_none_are_refused(name):
  config = config_of(name)
  for key in {key.rpartition(".")[0] for key, _ in leaves(config.to_dict())} - {""}:
    with pytest.raises(InputError, match=rf"\A{key}: 3 is not a section of keys\Z"):
      runner.plan_of(changed(config, **{key: 3}))
    if key != "priors":
      with pytest.raises(InputError, match=rf"\A{key}\.stepz: is not a key of [^\n]*; use one of [^\n]*\Z"):
        runner.plan_of(changed(config, **{f"{key}.stepz": 3}))
  for key in {key for key, _ in leaves(config.to_dict()) if not key.startswith("priors.")}:
    *path, last = key.split(".")
    values = config.to_dict()
    section = values
    for part in path:
      section = section[part]
    del section[last]
    with pytest.raises(InputError, match=rf"\A[^\n]*{last}[^\n]*\Z"):
      runner.plan_of(ConfigDict(values, type_safe=False))


@pytest.mark.parametrize(
  ("name", "key", "value"),
  [
    ("tab03_behaviour", "training.momentum", 0.8125),
    ("tab03_behaviour", "training.clip_norm", 3.5),
    ("tab03_behaviour", "training.eval_steps", (2, 6)),
    ("tab03_behaviour", "counter.noise_std", 0.03125),
    ("tab03_behaviour", "max_identifier.task.num_pads", 5),
    ("tab03_behaviour", "mlp_exactness", 1000),
    ("fig09_reft", "reft.c_tr", 0.3125),
    ("fig09_reft", "training.beta2", 0.625),
    ("fig09_reft", "pretrain.answer_weight", 0.375),
    ("fig09_reft", "text.spread", 0.4375),
    ("fig09_reft", "model.width", 24),
    ("fig09_reft", "counting.q", 3),
  ],
)
def test_an_accepted_value_is_the_one_that_stages_are_made_with(name, key, value):
  stages = runner.plan_of(changed(config_of(name), **{key: value})).stages
  described = canonical_json(describe(tuple(stages)))
  assert f'"{key.split(".")[-1]}":{canonical_json(value)}' in described


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
    "lanes_per_program": 1,
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
  folder, short = runner.run(config, str(workdir))
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
