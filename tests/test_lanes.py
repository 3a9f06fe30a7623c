"""Measuring several models as lanes of one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune_wrappers.models.model import FunctionModel
from finetune_wrappers.training.lanes import over_models

MODEL = FunctionModel(lambda params, tokens: tokens)


def measurement(params):
  return {"norm": jnp.sqrt((params["w"] ** 2).sum()), "product": params["w"] @ params["b"]}


@pytest.mark.parametrize(("size", "models"), [(1, 1), (2, 1), (3, 3), (5, 4)])
def test_models_measured_together_are_what_each_is_alone(size, models):
  generator = np.random.default_rng(0)
  params = [{"w": generator.normal(size=(3, 4)), "b": generator.normal(size=4)} for _ in range(models)]
  params = jax.tree.map(np.float32, params)
  found = over_models(MODEL, measurement, size)(params)
  assert len(found) == models
  for own, result in zip(params, found, strict=True):
    np.testing.assert_allclose(result["norm"], np.linalg.norm(own["w"]), rtol=1e-6)
    np.testing.assert_allclose(result["product"], own["w"] @ own["b"], rtol=1e-5, atol=1e-6)
    alone = over_models(MODEL, measurement, size)([own])[0]
    assert all(np.array_equal(alone[name], result[name]) for name in result)
