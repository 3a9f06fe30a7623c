"""Which runs share a program: none of two models, and none where a value is there for one and not for the other."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import assert_close, flat, nested, trained_by_sgd
from test_methods import LoRA
from test_objectives import COUNTER, at, drawn_by, losses_written_out, stage_with, trained_by_trainer
from tiny import LIGHT, Light, lane_of, params_of

from experiments import dry_run
from finetune_wrappers.models.model import Model
from finetune_wrappers.rules import ABOVE_0, NOT_NEGATIVE, optional
from finetune_wrappers.training.cohort import Cohort, lane_arrays
from finetune_wrappers.training.lanes import Layout
from finetune_wrappers.training.loop import Trainer
from finetune_wrappers.training.methods import Method, Subset
from finetune_wrappers.training.objectives import Answers
from finetune_wrappers.training.schedule import identity_of
from finetune_wrappers.training.stages import CompileStage, GivenStage, params_like
from finetune_wrappers.training.store import Store
from finetune_wrappers.training.swept import swept
from finetune_wrappers.types import InputError

ANSWERS = Answers(c_tr=0.5, target="ft")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalised(Answers):
  """A penalty on the weights of the last layer; None computes none."""

  penalty: float | None = swept(optional(NOT_NEGATIVE), None)

  def loss(self, model, params, task, batch, key):
    loss, logs = super().loss(model, params, task, batch, key)
    if self.penalty is None:
      return loss, logs
    return loss + self.penalty * jnp.square(params["out"]["kernel"]).sum(), logs


@dataclasses.dataclass(frozen=True)
class Scaled(Model):
  """A model's logits, times a factor."""

  own: Model
  factor: float
  precision = "highest"

  def answer(self, params, tokens_BxT, position):
    return self.factor * self.own.answer(params, tokens_BxT, position)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hot(Subset):
  """Changes the model and not its shapes."""

  heat: float = swept(ABOVE_0, traced=False)

  def model(self, model):
    return Scaled(model, self.heat)


def child_of(parent, objective=ANSWERS):
  return dataclasses.replace(stage_with(objective), kind="reft", parent=parent)


def by_hand(stage, leaves, loss):
  """Leaves after the 8 steps of a stage."""
  batches = drawn_by(stage, 8)
  return trained_by_sgd(lambda own, i: loss(own, at(batches, i)), leaves, stage.optimizer, 0.05, 8)[0]


def test_a_value_that_is_none_is_another_program_than_a_number(tmp_path):
  penalties = (None, 0.5)
  stages = [stage_with(Penalised(c_tr=0.5, target="ft", penalty=penalty)) for penalty in penalties]
  kept, lanes = trained_by_trainer(tmp_path, *stages)
  assert lanes == [1, 1]
  for stage, found, penalty in zip(stages, kept, penalties, strict=True):

    def loss(leaves, batch, penalty=penalty):
      return losses_written_out(leaves, batch)[1] + (penalty or 0.0) * jnp.square(leaves["out/kernel"]).sum()

    assert_close(flat(found["params"]), by_hand(stage, flat(params_of(LIGHT)), loss))


def test_numbers_of_an_optional_value_are_lanes_of_one_program():
  stages = [stage_with(Penalised(c_tr=0.5, penalty=penalty)) for penalty in (0.0, 0.5, None)]
  assert [identity_of(stage) == identity_of(stages[0]) for stage in stages] == [True, True, False]


def test_lanes_of_two_programs_become_no_arrays():
  lane = lane_of()
  for lanes in ([lane, {**lane, "penalty": np.float32(1)}], [{**lane, "penalty": np.float32(1)}, lane]):
    with pytest.raises(InputError, match=r"\Alanes: [^\n]*'penalty'[^\n]*\Z"):
      lane_arrays(lanes)


def test_children_of_two_models_are_trained_with_their_parents_own(tmp_path):
  """In one run, so that a program kept for the first child would be found for the second."""
  parents = [stage_with(ANSWERS, method=Hot(heat=heat)) for heat in (1.0, 3.0)]
  children = [child_of(parent) for parent in parents]
  kept, lanes = trained_by_trainer(tmp_path, *parents, *children)
  assert lanes == [1, 1, 1, 1] and identity_of(children[0]) != identity_of(children[1])
  for heat, parent, child, start, found in zip((1, 3), parents, children, kept[:2], kept[2:], strict=True):

    def loss(leaves, batch, heat=heat):
      return losses_written_out({**leaves, "out/kernel": heat * leaves["out/kernel"]}, batch)[1]

    assert_close(flat(start["params"]), by_hand(parent, flat(params_of(LIGHT)), loss))
    assert_close(flat(found["params"]), by_hand(child, flat(start["params"]), loss), rtol=1e-4)


def doubled(params):
  """Parameters of twice the width that answer the same."""
  into = {name: np.concatenate([leaf, leaf], axis=-1) for name, leaf in params["in"].items()}
  return {"in": into, "out": {"kernel": np.concatenate([params["out"]["kernel"]] * 2) / np.float32(2)}}


def test_roots_of_one_architecture_with_two_models_are_trained_apart(tmp_path):
  """As two programs are whose operands Tracr compiles to other shapes."""
  stages = [child_of(CompileStage(task=COUNTER, operand=operand)) for operand in ("pt", "ft")]
  assert identity_of(stages[0]) == identity_of(stages[1])
  params = {"pt": params_of(LIGHT), "ft": doubled(params_of(LIGHT))}
  factors, store = {"pt": 1.0, "ft": 3.0}, Store(tmp_path)
  Trainer(
    store, build=lambda stage: ({"params": params[stage.operand]}, {"operand": stage.operand}), lanes_per_program=2,
    model_of=lambda facts: Scaled(LIGHT, factors[facts["operand"]]), layout=Layout(1, "map"),
  ).run(stages)  # fmt: skip
  for stage in stages:
    operand = stage.parent.operand

    def loss(leaves, batch, factor=factors[operand]):
      return losses_written_out({**leaves, "out/kernel": factor * leaves["out/kernel"]}, batch)[1]

    assert store.facts(stage)["lanes"] == 1
    assert_close(flat(store.load(stage)[0]["params"]), by_hand(stage, flat(params[operand]), loss))


def test_given_models_of_one_name_share_no_program():
  assert len({identity_of(child_of(GivenStage(name="mine", checksum=own))) for own in ("0a", "0b", "0b")}) == 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Widened(Method):
  """Doubles the hidden layer and trains its output."""

  reshapes = True

  def split(self, params, key):
    wide = doubled(params)
    return wide["out"], wide["in"]

  def join(self, trained, frozen):
    return {"in": frozen, "out": trained}

  def model(self, model):
    return Scaled(model, 2.0)


def test_a_chain_is_measured_with_parameters_of_its_own_shapes():
  before, parent = params_of(LIGHT), stage_with(ANSWERS, method=Widened())
  params = params_like(parent, before)
  assert {name: leaf.shape for name, leaf in flat(params).items()} == {
    "in/kernel": (35, 16), "in/bias": (16,), "out/kernel": (16, 7)
  }  # fmt: skip
  after_lora = params_like(child_of(stage_with(ANSWERS, method=LoRA())), before)
  assert {name: leaf.shape for name, leaf in flat(after_lora).items()} == {n: x.shape for n, x in flat(before).items()}
  child = child_of(parent)
  own, root = (Cohort(Scaled(LIGHT, 2.0), child.recipe, Layout(1, "map")).memory([x], lane_arrays([child.lane]))
               for x in (params, before))  # fmt: skip
  assert own - root > sum(leaf.nbytes for leaf in flat(before).values())


def test_flops_are_those_of_the_model_that_trains():
  """Counted of a method that changes the model, against the same model without a method."""

  class Twice(Light):
    def answer(self, params, tokens, position):
      return sum(super(Twice, self).answer(params, tokens + 0 * i, position) for i in range(2))

  @dataclasses.dataclass(frozen=True, kw_only=True)
  class ToTwice(Subset):
    def model(self, model):
      return Twice()

  params = nested(flat(params_of(LIGHT)))
  found = dry_run.flops_of(stage_with(ANSWERS, method=ToTwice()), LIGHT, params)
  plain = stage_with(ANSWERS)
  assert found == dry_run.flops_of(plain, Twice(), params) > 1.5 * dry_run.flops_of(plain, LIGHT, params)
