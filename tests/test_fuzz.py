"""Every key of every config, given anything: one line before anything is compiled, or used as it is."""

import math

import jax
import pytest
from hostile import HOSTILE, changed, config_of, leaves
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from test_configs import NAMES

from experiments import runner
from finetune_wrappers.training.stages import describe
from finetune_wrappers.types import InputError, canonical_json

COMPILED: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def _count_compilations():
  jax.monitoring.register_event_duration_secs_listener(
    # Tracing the shapes of a model's parameters, to know their paths, takes milliseconds.
    lambda event, seconds, **_: COMPILED.append(event) if "compile" in event and "jaxpr_trace" not in event else None
  )


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
