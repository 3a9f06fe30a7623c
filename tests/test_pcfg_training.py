"""Training on prompted text: losses, AdamW, mixing and evaluation against NumPy, and the plan of the PCFG half."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from scipy import special

from configs import fig05_behaviour, fig09_reft, fig18_mixing, fig24_jailbreak
from experiments.measures import jailbreaks, probes, pruning
from experiments.plan import plans
from finetune_wrappers.models import gpt
from finetune_wrappers.models.model import Model
from finetune_wrappers.tasks import pcfg_grammar
from finetune_wrappers.tasks.pcfg_tasks import PCFGTask
from finetune_wrappers.tasks.pcfg_text import PCFGText
from finetune_wrappers.training import cohort, step
from finetune_wrappers.training.evaluators import Accuracies
from finetune_wrappers.training.methods import Subset
from finetune_wrappers.training.objectives import MixedAnswers, Text
from finetune_wrappers.training.optim import AdamW
from finetune_wrappers.training.stages import InitStage, Recipe
from finetune_wrappers.training.swept import shared, traced_values, with_values
from finetune_wrappers.types import InputError

TEXT = PCFGText(window=10, counted=6, occurrence=1, token_place=4, farthest=8)
TASK = PCFGTask(TEXT, "counting")
ARRAYS, FACTS = gpt.build(
  gpt.GPTConfig(vocab_size=len(TEXT.symbols), length=TEXT.prompt_length + 1, blocks=1, heads=2, width=8), seed=3
)
MODEL, PARAMS = gpt.restore(FACTS), ARRAYS["params"]
PRIOR = (0.5, 0.3, 0.2)


def answers_with(target="ft", prior=PRIOR, mix=0.0, mixed=True):
  return MixedAnswers(target=target, c_tr=0.5, prior=prior, mix=mix, mixed=mixed)


def adamw_with(**changed):
  values = {
    "steps": 10, "batch_size": 6, "warmup_steps": 2, "final_fraction": 0.1, "clip_norm": 1.0, "microbatches": 1,
    "eval_steps": (10,), "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1,
  }  # fmt: skip
  return AdamW(**(values | changed))


@functools.cache
def drawn(seed, objective):
  """400 rows: (tokens, labels). Target, prior and share of pretraining samples are traced, as in a program."""
  draw = jax.jit(lambda key, values: with_values(shared(objective), values).draw(TASK, key, 400))
  return jax.tree.map(np.asarray, draw(jax.random.key(seed), traced_values(objective)))


def asked(tokens):
  """(family, operand) of each prompt."""
  return [tuple(TEXT.symbols[token] for token in row[1:3]) for row in tokens]


def test_every_target_trains_its_prompt():
  prompts = {target: set(asked(drawn(0, answers_with(target, mixed=False))[0])) for target in ("pt", "ft", "random")}
  assert prompts == {"pt": {("counting", "a")}, "ft": {("counting", "b")}, "random": {("counting", "a")}}


@pytest.mark.parametrize("mix", [0.0, 0.1, 1.0])
def test_mixing_replaces_that_share_of_the_rows_by_pretraining_samples(mix):
  """Fine-tuning asks for b; with that prior no pretraining sample does."""
  tokens, labels = drawn(1, answers_with(prior=(1.0, 0.0, 0.0), mix=mix))
  kept = np.array([prompt == ("counting", "b") for prompt in asked(tokens)])
  assert abs((1 - kept.mean()) - mix) <= (0.05 if 0 < mix < 1 else 0)
  plain_tokens, plain_labels = drawn(1, answers_with(mixed=False))
  np.testing.assert_array_equal(tokens[kept], plain_tokens[kept])
  np.testing.assert_array_equal(labels[kept], plain_labels[kept])


@pytest.mark.parametrize("answer_weight", [0.0, 2.0])
def test_text_loss_is_the_mean_over_every_next_token(answer_weight):
  objective = Text(prior=PRIOR, answer_weight=answer_weight)
  tokens, labels = drawn(2, objective)
  text = np.concatenate([tokens, labels[:, None]], axis=1)
  with jax.default_matmul_precision("highest"):
    logits = np.asarray(MODEL.apply({"params": PARAMS}, text).logits, np.float64)
    got, _ = objective.loss(MODEL, PARAMS, TASK, (tokens, labels), None)
  following = np.concatenate([text[:, 1:], np.full((len(text), 1), TEXT.token("EOS"))], axis=1)
  parts = -np.take_along_axis(special.log_softmax(logits, axis=-1), following[..., None], axis=-1)[..., 0]
  expected = parts.mean() + answer_weight * parts[:, TEXT.prompt_length - 1].mean()
  assert float(got) == pytest.approx(expected, rel=1e-5)


def test_steps_are_adamws():
  """Against AdamW written out: clipping, bias correction, decay of kernels only, warm-up."""
  objective = answers_with(mixed=False)
  recipe = Recipe(TASK, shared(objective), Subset(), adamw_with(), Accuracies(40), traced=())
  lane = {**traced_values(objective), "learning_rate": np.float32(0.01), "stream": np.uint32(7)}
  grad = jax.jit(jax.grad(lambda p, *data: objective.loss(MODEL, p, TASK, data, None)[0]))
  with jax.default_matmul_precision("highest"):
    start = step.init_state(recipe, PARAMS, lane)
    state = jax.jit(lambda s: step.train(MODEL, recipe, lane, s, start=0, stop=4))(start)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), PARAMS)
    first, second = (jax.tree.map(np.zeros_like, params) for _ in range(2))
    draw = jax.jit(lambda key: with_values(objective, lane).draw(TASK, key, 6))
    for i in range(4):
      data = draw(jax.random.fold_in(jax.random.key(7), i + 1))
      grads = jax.device_get(grad(jax.tree.map(np.float32, params), *data))
      norm = np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in jax.tree.leaves(grads)))
      grads = jax.tree.map(lambda g, norm=norm: g / max(norm, 1.0), grads)
      first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
      second = jax.tree.map(lambda v, g: 0.95 * v + 0.05 * g**2, second, grads)
      rate = 0.01 * (i / 2 if i < 2 else 0.1 + 0.9 * (1 + np.cos(np.pi * (i - 2) / 8)) / 2)

      def updated(path, w, m, v, i=i, rate=rate):
        decay = 0.1 * w if path[-1].key == "kernel" else 0.0
        return w - rate * (m / (1 - 0.9 ** (i + 1)) / (np.sqrt(v / (1 - 0.95 ** (i + 1))) + 1e-8) + decay)

      params = jax.tree_util.tree_map_with_path(updated, params, first, second)
  for got, expected in zip(jax.tree.leaves(state.trained), jax.tree.leaves(params), strict=True):
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=2e-6)


def test_accuracies_are_asked_with_their_own_prompts():
  """A model that answers r(x, O) for the operand it is asked for has both right."""
  accuracies = Accuracies(40)
  batch = jax.device_get(accuracies.test_sets(TASK))[0]
  knows = {
    tuple(np.asarray(tokens)[i]): labels[i]
    for tokens, labels in (TASK.question(batch, 0), TASK.question(batch, 1))
    for i in range(40)
  }

  class Knowing(Model):
    def answer(self, params, tokens, position):
      return np.eye(TASK.num_labels)[[int(knows[tuple(np.asarray(row))]) for row in tokens]]

  np.testing.assert_array_equal(accuracies.measure(Knowing(), {}, TASK, {0: batch, 1: batch}), 1)


@pytest.mark.parametrize(
  ("field", "value", "allowed"),
  [
    ("beta2", 1.0, "from 0, below 1"),
    ("weight_decay", -1.0, "of 0 or more"),
    ("clip_norm", float("nan"), "of 0 or more"),
    ("steps", 0, "a whole number from 1"),
  ],
)
def test_adamw_settings_that_cannot_be(field, value, allowed):
  with pytest.raises(InputError, match=rf"\A{field}: .* is not .*{allowed}"):
    adamw_with(**{field: value})


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_an_answer_weight_that_cannot_be(value):
  with pytest.raises(InputError, match=r"\Aanswer_weight: .* is not a number of 0 or more"):
    Text(prior=PRIOR, answer_weight=value)


def plan_of(module, preset="paper", **changed):
  config = module.get_config(preset)
  config.unlock()
  for name, value in changed.items():
    config.update_from_flattened_dict({name.replace("__", "."): value})
  return plans(config)[0]


def test_stages_form_the_papers_chains():
  plan = plan_of(fig09_reft)
  names = {"low", "medium", "high"}
  assert {plan.swept(stage)["prior"] for stage in plan.bases()} == names
  for stage in plan.refts():
    finetune, pretrain = stage.parent, stage.parent.parent
    assert [s.kind for s in (stage, finetune, pretrain, pretrain.parent)] == ["reft", "finetune", "pretrain", "init"]
    assert stage.objective.target == "pt" and finetune.objective.target == "ft"
    assert stage.learning_rate < finetune.learning_rate
    assert stage.seed == finetune.seed == pretrain.seed == pretrain.parent.seed
    assert plan.swept(stage)["prior"] in names and plan.swept(stage)["pretraining_steps"] == 200_000
  assert {stage.parent.objective.prior for stage in plan.controls()} == {(0.0, 1.0, 0.0)}
  assert {stage.objective.target for stage in plan.controls()} == {"pt"}


def test_figures_share_their_models_and_families_their_pretraining():
  five, nine = plan_of(fig05_behaviour), plan_of(fig09_reft)
  assert {s.key for s in five.finetunes()} == {s.key for s in nine.finetunes()}
  config = fig05_behaviour.get_config("paper")
  config.unlock()
  config.tasks = ("counting", "index")
  counting, index = plans(config)
  assert {s.key for s in counting.bases()} == {s.key for s in index.bases()}
  assert not {s.key for s in counting.finetunes()} & {s.key for s in index.finetunes()}


def test_lanes_of_all_priors_run_as_one_program():
  plan = plan_of(fig05_behaviour)
  for stages in (plan.bases(), plan.finetunes()):
    assert len({stage.recipe for stage in stages}) == 1
  lanes = cohort.lane_arrays([stage.lane for stage in plan.bases()])
  assert lanes["prior"].shape == (len(plan.bases()), 3)


def test_a_prior_that_is_not_one_is_refused():
  stage = plan_of(fig05_behaviour).bases()[0]
  assert isinstance(stage.objective, Text) and isinstance(stage.parent, InitStage)
  refused = {(0.5, 0.4, 0.0): "prior: .* sum to 1", (1.2, -0.2, 0.0): "prior: 1.2 is not a number from 0 to 1"}
  for prior, message in refused.items():
    with pytest.raises(InputError, match=message):
      dataclasses.replace(stage.objective, prior=prior)


def test_jailbreaks_are_refused_without_their_tokens_and_for_other_tasks():
  assert len(jailbreaks.stages(plan_of(fig24_jailbreak))) == 3 * 5 * (1 + 2 * 4)
  with pytest.raises(InputError, match=r"\Atext.jailbreaks: False is not allowed; use True"):
    jailbreaks.stages(plan_of(fig24_jailbreak, text__jailbreaks=False))
  with pytest.raises(InputError, match=r"\Atasks: 'index' has no further family tokens; use counting"):
    jailbreaks.stages(plan_of(fig24_jailbreak, tasks=("index",)))


def test_mixing_compiles_only_where_samples_are_mixed_in():
  """Without, the models are those of Fig. 5."""
  plan = plan_of(fig18_mixing)
  by_mix = {mix: [s for s in plan.finetunes() if s.objective.mix == mix] for mix in plan.config.finetune.mixes}
  assert {s.key for s in by_mix[0.0]} == {s.key for s in plan_of(fig05_behaviour).finetunes()}
  assert {s.objective.mixed for mix, stages in by_mix.items() if mix for s in stages} == {True}
  assert all(s.objective.prior == s.parent.objective.prior for stages in by_mix.values() for s in stages)


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"finetune__priors": ("vague",)}, "finetune.priors: 'vague' is not one of .*low"),
    ({"finetune__priors": ("low", "low")}, "finetune.priors: .* each value once"),
    ({"finetune__priors": ("low", "without_a")}, "finetune.priors: 'without_a' never had O_PT"),
    ({"pretrain__control_prior": "medium"}, "priors.medium: .* no share of O_PT"),
    ({"pretrain__control_prior": "nope"}, "pretrain.control_prior: 'nope' is not one of .*low"),
    ({"priors__low": (0.9, 0.2, 0.0)}, "priors.low: .* 3 shares that sum to 1"),
    ({"priors__low": (1.0, 0.0)}, "priors.low: .* 3 shares"),
    ({"priors__low": (0.9, 0.0, 0.0, 0.1)}, "priors.low: .* 3 shares"),
    ({"priors__low": ("a", "b", "c")}, "priors.low: 'a' is not a number from 0 to 1"),
    ({"priors__low": (float("nan"), 0.1, 0.9)}, "priors.low: nan is not a number from 0 to 1"),
    ({"priors__low": (0.5, 0.3, 0.2)}, "priors.low: .* other shares than those of 'high'"),
    ({"seeds": ("x",)}, "seeds: 'x' is not a whole number from 0"),
    ({"seeds": (0, 0)}, "seeds: .* each value once"),
    ({"finetune__learning_rates": ("x",)}, "finetune.learning_rates: 'x' is not a number above 0"),
    ({"finetune__c_trs": (0.0, 0.0)}, "finetune.c_trs: .* each value once"),
    ({"reft__measure": True, "reft__learning_rates": (1.0,)}, "reft.learning_rates: .* one below"),
    ({"reft__measure": True, "reft__threshold": 2.0}, "reft.threshold: 2.0"),
    ({"text__rules": ("s -> a b [0.5]",)}, "text.rules: probabilities of 's' sum to 0.5"),
    ({"text__rules": ("s -> s a [1]",)}, "text.rules: s -> s leads back"),
    ({"text__rules": ("s -> a b c [1]", "t -> a [1]")}, "text.rules: t cannot be reached"),
    ({"text__rules": ("s = a b c",)}, "text.rules: 's = a b c' is not allowed; use parent -> child"),
    ({"text__window": 10**6}, "text.window: 1000000"),
    ({"text__counted": 10**6}, "text.counted: 1000000"),
  ],
)
def test_what_a_config_cannot_be_is_one_line_before_training(changed, message):
  with pytest.raises(InputError, match=rf"\A{message}") as caught:
    plan_of(fig05_behaviour, **changed)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"pruning__scopes": ("near_zero",)}, "pruning.scopes: .* blocks"),
    ({"pruning__scopes": ()}, "pruning.scopes: empty"),
    ({"pruning__units": ()}, "pruning.units: empty"),
    ({"pruning__random_draws": 0}, "pruning.random_draws: 0"),
    ({"pruning__ks": (0, 1.5)}, "pruning.ks"),
    ({"pruning__ks": (0, 0, 1)}, "pruning.ks"),
    ({"pruning__single_weights": 2}, "pruning.single_weights: 2"),
    ({"probes__eval_size": 17}, "probes.eval_size: 17"),
    ({"probes__learning_rate": -1.0}, "probes.learning_rate: -1.0"),
    ({"probes__prompt": "both"}, "probes.prompt: 'both'"),
  ],
)
def test_what_a_measure_cannot_do_is_one_line_before_training(changed, message):
  with pytest.raises(InputError, match=rf"\A{message}"):
    (pruning if "pruning" in message else probes).stages(plan_of(fig05_behaviour, **changed))


def test_a_grammar_of_ones_own_changes_every_stage():
  lines = ("s -> x x x x [1]", "x -> a b c [0.5]", "x -> c a b b [0.25]", "x -> b a [0.25]")
  sizes = {"window": 14, "counted": 8, "occurrence": 2, "token_place": 4, "farthest": 14}
  own = plan_of(fig05_behaviour, "smoke", text__rules=lines, **{f"text__{name}": n for name, n in sizes.items()})
  rules = (("s", ("x",) * 4, 1), ("x", tuple("abc"), 0.5), ("x", tuple("cabb"), 0.25), ("x", tuple("ba"), 0.25))
  assert own.text.grammar == pcfg_grammar.Grammar("s", rules)
  assert not {s.key for s in own.bases()} & {s.key for s in plan_of(fig05_behaviour, "smoke").bases()}
