"""Settings, measures and reports register themselves: one new file is enough, and refusals name what is offered."""

import pytest
from hostile import changed, config_of
from ml_collections import ConfigDict
from test_configs import NAMES

from experiments import schema, settings
from experiments.plan import plans
from experiments.registry import registered
from experiments.reports.names import named, short_name
from finetune_wrappers.types import InputError

_SETTING = """
from experiments import schema
from experiments.settings import Setting
from experiments.settings.tracr import TracrPlan
from finetune_wrappers.rules import STEPS

OWN = {**schema.ANSWERS, "story": {"steps": STEPS}}
SETTING = Setting(plan=TracrPlan, tasks={"twist": "Twist"}, rates={0.5: "η_L"}, schema=OWN)
"""
OFFERED = {
  "quickstart": (
    "behaviour, data, maps, probes, pruning, readings",
    "behaviour, maps, pruning, quickstart, readings, revival",
  ),
  "fig05_behaviour": (
    "behaviour, data, jailbreaks, probes, pruning",
    "jailbreaks, mixing, pcfg_behaviour, pcfg_curves, pcfg_labels, probes, pruning, quickstart, revival",
  ),
  "tab01_generation": (
    "behaviour, feature_probes, story_data, story_samples",
    "story_curves, story_overview, story_probes, story_table",
  ),
}
MEASURES = {"stories": ("behaviour", "feature_probes", "story_data", "story_samples")}  # where not those of answers


@pytest.fixture
def tales(tmp_path, monkeypatch):
  """Another setting: one file in a folder of its own."""
  (tmp_path / "tales.py").write_text(_SETTING)
  monkeypatch.setattr(settings, "__path__", [*settings.__path__, str(tmp_path)])
  registered.cache_clear()
  yield
  registered.cache_clear()


@pytest.mark.parametrize("name", OFFERED)
def test_a_setting_offers_the_measures_and_reports_whose_needs_its_keys_meet(name):
  measures, reports = OFFERED[name]
  with pytest.raises(InputError, match=rf"\Ameasures: 'nope' is not one of {measures}\Z"):
    schema.check_keys(changed(config_of(name), measures=("nope",)))
  with pytest.raises(InputError, match=rf"\Areport: 'nope' is not one of {reports}\Z"):
    schema.check_keys(changed(config_of(name), report="nope"))


@pytest.mark.parametrize("name", NAMES)
def test_a_report_without_the_rows_that_it_reads_is_refused(name):
  config = config_of(name)
  for measure in registered("experiments.reports", "REPORT")[config.report].reads:
    left = tuple(other for other in MEASURES.get(config.setting, ("data", "behaviour", "pruning")) if other != measure)
    with pytest.raises(
      InputError, match=rf"\Ameasures: report '{config.report}' reads rows of [^\n]*add [^\n]*{measure}"
    ):
      plans(changed(config, measures=left))


@pytest.mark.parametrize(
  ("name", "key", "value", "message"),
  [
    ("tab03_behaviour", "finetune.targets", ("random",), r"use \('ft',\), as report 'behaviour' needs"),
    ("fig27_reft", "reft.measure", False, "use True, as report 'revival' needs"),
    ("quickstart", "finetune.targets", ("random",), r"use \('ft',\), as report 'quickstart' needs"),
  ],
)
def test_what_a_report_cannot_tell_apart_or_lacks_is_refused(name, key, value, message):
  with pytest.raises(InputError, match=rf"\A{key}: [^\n]* is not allowed; {message}\Z"):
    plans(changed(config_of(name), **{key: value}))


def test_a_model_is_named_by_the_fields_of_its_row_and_its_settings_words():
  row = {
    "setting": "pcfg",
    "task": "counting",
    "pretraining_steps": 800,
    "prior": "low",
    "target": "random",
    "mix": 0.1,
  }
  row |= {"learning_rate": 1e-4, "c_tr": 1.0, "reft_learning_rate": None}
  fields = ("task", "pretraining_steps", "target", "learning_rate", "c_tr", "reft_learning_rate", "prior", "mix")
  assert named(row, *fields) == "Counting, n_iters 800, randFT, η_L 0.0001, C_Tr 1, low prior, 10 % mixed in"
  compiled = {"setting": "tracr", "task": "max_identifier", "target": "ft", "learning_rate": 1e-4, "mix": None}
  assert named(compiled, *fields) == "Max-identifier, η_VS 0.0001"
  own = {"setting": "tracr", "rank": 4, "forget_weight": 0.25, "kind_of_lora": "wide", "left": None}
  assert named(own, "rank", "forget_weight", "kind_of_lora", "left") == "rank 4, forget_weight 0.25, kind_of_lora wide"
  assert short_name({"operand": "pt"}) == "compiled"
  assert short_name(row | {"reft_learning_rate": 1e-5}) == "randFT 0.0001, C_Tr 1, reFT 1e-05"


def test_a_new_setting_is_one_new_file(tales):
  shared = {
    name: value
    for name, value in config_of("quickstart").to_dict().items()
    if name in (*schema.SHARED, *schema.ANSWERS)
  }
  own = {"setting": "tales", "tasks": ("twist",), "measures": ("behaviour", "data"), "report": "revival"}
  config = ConfigDict({**shared, **own, "story": {"steps": 3}})
  schema.check_keys(config)
  with pytest.raises(InputError, match=r"\Astory.steps: 0 is not a whole number from 1 to"):
    schema.check_keys(changed(config, **{"story.steps": 0}))
  with pytest.raises(InputError, match=r"\Ameasures: 'maps' is not one of behaviour, data, probes, pruning\Z"):
    schema.check_keys(changed(config, measures=("maps",)))
  with pytest.raises(InputError, match=r"\Areport: 'nope' is not one of pruning, quickstart, revival\Z"):
    schema.check_keys(changed(config, report="nope"))
  with pytest.raises(InputError, match=r"\Asetting: 'opera' is not one of pcfg, stories, tales, tracr\Z"):
    schema.check_keys(changed(config, setting="opera"))
