"""Probes of whole models: a compiled program's count, a function's stream, several answer positions."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_programs import count, task_of

from configs import tracr_common
from experiments.measures import probes
from experiments.models import Trained
from experiments.settings.tracr import TracrPlan
from finetune_wrappers.analysis import Prober, ProbeSettings, probe, probing
from finetune_wrappers.models.model import FunctionModel
from finetune_wrappers.tasks.pcfg_tasks import PCFGTask
from finetune_wrappers.tasks.pcfg_text import PCFGText
from finetune_wrappers.tasks.tracr_tasks import CounterTask
from finetune_wrappers.types import Batch, InputError, ModelOutput

QUICK = {"steps": 300, "batch_size": 64, "learning_rate": 0.03, "drops": (200,), "eval_size": 640}


class PairTask:
  """Letters 0, 1, 2; the answers are read at two positions: there stands how often O occurs up to there."""

  name, length, num_labels, answer_position, prompted, holds_out = "pairs", 6, 7, (2, 5), False, False

  def sample_test(self, key, batch_size, c_te):
    del c_te
    tokens = jax.random.randint(key, (batch_size, self.length), 0, 3)
    labels = [jnp.cumsum(tokens == letter, axis=1)[:, jnp.array(self.answer_position)] for letter in (0, 1)]
    return Batch(tokens, *labels)

  def question(self, batch, target):
    return batch.tokens, (batch.labels_pt, batch.labels_ft)[target]

  def text_of(self, tokens):
    return tokens, (0, 1, 2)


def counting(params, tokens):
  """A stream that has nothing at first and then the first letter's count so far, one-hot."""
  counts = jax.nn.one_hot(jnp.cumsum(tokens == 0, axis=1), 7) * params["scale"]
  return ModelOutput(counts, residuals=(jnp.zeros_like(counts), counts))


def test_several_answer_positions_are_read_as_so_many_strings():
  found = probe(FunctionModel(counting), {"scale": jnp.float32(5)}, PairTask(), ProbeSettings(**QUICK))
  batch = PairTask().sample_test(jax.random.key(9), 20_000, 0)
  common_label = np.bincount(np.asarray(batch.labels_pt).ravel()).max() / 40_000
  assert found.blocks == (1, 2)
  assert found.guess[0] == pytest.approx(common_label, abs=0.05)
  assert found.of("pt", 2) == 1.0 and found.of("pt", 1) == pytest.approx(found.guess[0], abs=0.02)
  assert found.selectivity("pt", 2) == 1.0 - found.of("control_pt", 2) > 0.3


def test_a_probe_is_tested_on_the_strings_that_a_task_holds_out():
  """A stream of noise, fixed for each string, is a string by heart; one that counts is read on new strings too."""
  task = task_of(count, "xy", num_letters=5, answer_position=1)
  place = 5 ** np.arange(task.length)
  noise = np.random.default_rng(0).normal(size=(5**task.length, 256)).astype(np.float32)

  def streams(params, tokens):
    by_heart = jnp.broadcast_to(params["noise"][tokens @ place][:, None], (*tokens.shape, 256))
    counted = jnp.broadcast_to((tokens == task.token_ids[0]).sum(1)[:, None, None] == jnp.arange(256), by_heart.shape)
    return ModelOutput(by_heart, residuals=(by_heart, counted.astype(jnp.float32)))

  settings = ProbeSettings(**{**QUICK, "steps": 400, "drops": ()})
  found = probe(FunctionModel(streams), {"noise": noise}, task, settings)
  assert found.of("pt", 2) > 0.95  # the only string of five x is held out, and so its label is never trained
  assert found.of("pt", 1) < found.guess[0] + 0.15 < 0.7 and found.of("control_pt", 1) < 0.7


def test_residuals_of_unequal_widths_and_what_was_not_probed_are_refused_in_one_line():
  def widening(params, tokens):
    stream = counting(params, tokens).residuals[0]
    return ModelOutput(stream, residuals=(stream, stream[..., :3]))

  with pytest.raises(InputError) as caught:
    probe(FunctionModel(widening), {"scale": jnp.float32(5)}, PairTask(), ProbeSettings(**QUICK))
  assert str(caught.value).startswith("residuals: [7, 3] is not allowed; use one width") and "\n" not in str(
    caught.value
  )
  found = probing.Probed((1, 2), np.zeros((2, 4)), np.zeros(4))
  with pytest.raises(InputError, match=r"\Ablock: 0 is not allowed; use one of 1, 2\Z"):
    found.of("pt", 0)
  with pytest.raises(InputError, match=r"\Areads: 'label' is not allowed; use one of pt, ft, [^\n]*\Z"):
    found.of("label", 1)
  with pytest.raises(InputError, match=r"\Areads: 'label' is not allowed; [^\n]*\Z"):
    dataclasses.replace(found, negative=found).saturated("label", 1)


def test_a_negative_that_reads_as_well_saturates_and_without_one_that_is_said():
  model, task, settings = FunctionModel(counting), PairTask(), ProbeSettings(**QUICK)
  has, lacks = {"scale": jnp.float32(5)}, {"scale": jnp.float32(0)}
  prober = Prober(model, task, settings)
  assert prober(has, negative=has).saturated("pt", 2) and not prober(has, negative=lacks).saturated("pt", 2)
  with pytest.raises(InputError, match=r"\Anegative: missing; probe also"):
    prober(has).saturated("pt", 2)


def test_a_model_without_its_residual_stream_is_refused_in_one_line():
  bare = FunctionModel(lambda params, tokens: counting(params, tokens).logits)
  with pytest.raises(InputError) as caught:
    probe(bare, {"scale": jnp.float32(1)}, PairTask(), ProbeSettings(**QUICK))
  assert str(caught.value).startswith("model: gives no residuals") and "\n" not in str(caught.value)


def test_what_a_probe_could_not_learn_is_no_value():
  found = probe(FunctionModel(counting), {"scale": jnp.float32(jnp.nan)}, PairTask(), ProbeSettings(**QUICK))
  values = {(r["block"], r["reads"]): r["value"] for r in found.rows() if r["metric"] == "acc_probe"}
  assert values[2, "pt"] is None and values[1, "pt"] is not None and len(values) == 8


def test_the_text_of_a_task_is_what_its_answers_are_about():
  counter = CounterTask(num_letters=5, vocab_size=4, num_pads=2)
  text, letters = counter.text_of(counter.sample(jax.random.key(0), 50, 0.5).tokens)
  assert [counter.symbols[i] for i in letters] == list("abcd") and text.shape == (50, 5)
  assert np.isin(text, letters).all()
  counting_task = PCFGTask(PCFGText(window=20, counted=8, occurrence=2, token_place=4, farthest=14), "counting")
  batch = counting_task.sample(jax.random.key(0), 50, 0.5)
  text, letters = counting_task.text_of(batch.tokens)
  symbols = counting_task.text.symbols
  assert [symbols[i] for i in letters] == ["a", "b", "c"] and text.shape == (50, 8)
  counts = (np.asarray(text) == letters[0]).sum(axis=1)
  assert [symbols[i] for i in np.asarray(batch.labels_pt)] == [str(count) for count in counts]


@pytest.fixture(scope="module")
def compiled():
  """A plan of a tiny Counter with a section for probes, and the rows of its two compiled models."""
  config = tracr_common.tracr_config("some_figure", "smoke", measures=("probes",), report="probes")
  config.counter.task.update({"num_letters": 4, "vocab_size": 3, "num_pads": 1})
  config.unlock()
  config.probes = dataclasses.asdict(ProbeSettings(**QUICK))
  plan = TracrPlan(config, "counter")
  plan.config.finetune.learning_rates = ()  # nothing is trained

  def load(stage):
    arrays, facts = plan.build(stage)
    params = jax.tree.map(jnp.asarray, arrays["params"])
    empty = {"metrics": np.zeros((0, 4)), "losses": np.zeros(0), "logs": {}, "steps": np.zeros(0, int)}
    return Trained(
      stage=stage, model=plan.restore(facts), params=params, compiled=params, directions=[], labels=[], **empty,
      diverged_step=-1, device="cpu",
    )  # fmt: skip

  return plan, probes.measure(types.SimpleNamespace(plan=plan, load=load)).rows


def test_a_compiled_count_is_read_after_the_block_that_counts_and_not_where_another_letter_is_counted(compiled):
  plan, rows = compiled
  value = {
    (row["model"], row["reads"], row.get("block")): row["value"]
    for row in rows
    if row["metric"] in ("acc_probe", "guess_baseline")
  }
  assert {row["family"] for row in rows} == {plan.task.name} and {row["stage"] for row in rows} == {"probe"}
  assert {row["operand"] for row in rows if row["model"] == "never"} == {"ft"}
  assert {block for _, _, block in value} == {None, 0, 1, 2, 3}
  assert value["compile", "pt", 3] > 0.99 and value["never", "ft", 3] > 0.99
  # The answer position's own letter is all that stands there before attention.
  assert value["compile", "pt", 0] < 0.8
  assert value["never", "pt", 3] < 0.8 and value["compile", "ft", 3] < 0.8
  assert value["compile", "control_pt", 3] < 0.8


def saturated(own, negative, guess, **more):
  return probing.saturated(own, negative_R=negative, guess=guess, **more)


def test_saturated_where_a_model_without_the_capability_is_read_as_well():
  assert saturated([1.0, 1.0], [0.96, 0.96], 0.05) and not saturated([1.0, 1.0], [0.9, 0.9], 0.05)
  assert saturated([1.0, 0.8], [0.9, 0.82], 0.05)  # means 0.90 and 0.86
  assert not saturated([0.09], [0.09], 0.05) and not saturated([0.4], [0.37], 0.35)  # nothing is read
  assert saturated([0.1], [0.99], 0.05) is True  # lost here, but readable without the capability
  assert not saturated([0.7], [0.5], 0.1, margin=0.15) and saturated([0.75], [0.5], 0.1, margin=0.25)
  with pytest.raises(InputError, match="margin: -0.1 is not allowed; use 0 or more"):
    saturated([0.5], [0.5], 0.1, margin=-0.1)
