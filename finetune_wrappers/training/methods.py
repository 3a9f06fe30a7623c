"""Which parameters train, and how: all of them, a subset; or parameters of the method's own, such as LoRA's."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from finetune_wrappers.models.model import Model
from finetune_wrappers.rules import Checked, ruled, text
from finetune_wrappers.types import InputError, Params, require

ALL, MATRICES, NO_EMBEDDINGS = TRAINED = ("all", "matrices", "no_embeddings")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(Checked):
  """Splits the parent's weights into what trains and what does not. Frozen and hashable; traced fields may be tracers.

  Attributes:
    reshapes: whether the weights that are kept have another structure than the parent's.
  """

  reshapes = False

  @property
  def changes_model(self) -> bool:
    """Whether what is trained from its weights may need another program than from the parent's."""
    return self.reshapes or type(self).model is not Method.model

  def split(self, params: Params, key: Any) -> tuple[Any, Any]:
    """(what trains, what is frozen), two pytrees of float32 arrays; the key is for weights that the method adds."""
    raise NotImplementedError

  def join(self, trained: Any, frozen: Any) -> Params:
    """The weights that the model runs with, and that are kept at the end."""
    raise NotImplementedError

  def model(self, model: Model) -> Model:
    """The model that runs with them; another than the parent's for a method that adds, say, a soft prompt."""
    return model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subset(Method):
  """The model's own parameters, or some of them.

  Attributes:
    trained: `all`, `matrices` (arrays of two axes or more, not called embedding), `no_embeddings`, or a path: an
      array such as `blocks_1/attn/value/kernel`, or all below it, such as `blocks_1`.
  """

  trained: str = ruled(text(f"{', '.join(TRAINED)} or a path as blocks_1", r"\S+"), ALL)

  def split(self, params: Params, key: Any) -> tuple[Any, Any]:
    """See Method.

    Raises:
      InputError: for a path that is not there.
    """
    del key
    if self.trained == ALL:
      return params, {}
    mask = mask_of(params, self.trained)
    if not any(jax.tree.leaves(mask)):
      raise InputError(f"trained: {self.trained!r} names no parameter; use {', '.join(TRAINED)} or a path as blocks_1")
    trained = jax.tree.map(lambda leaf, trains: leaf if trains else None, params, mask)
    frozen = jax.tree.map(lambda leaf, trains: None if trains else leaf, params, mask)
    return trained, frozen

  def join(self, trained: Any, frozen: Any) -> Params:
    """See Method."""
    if self.trained == ALL:
      return trained
    return jax.tree.map(lambda own, other: other if own is None else own, trained, frozen, is_leaf=lambda x: x is None)


def path_of(path: Any) -> str:
  """The path of a leaf in any pytree, such as `blocks_1/attn/value/kernel`."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def require_floats(params: Params, name: str = "params") -> None:
  """Raises InputError for a leaf that is not of floats, as it has no gradient."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    dtype = jnp.result_type(leaf)
    fine = jnp.issubdtype(dtype, jnp.floating)
    require(fine, f"{name} {path_of(path)}", str(dtype), "floats; close the model's function over anything else")


def is_matrix(path: str, leaf: Any) -> bool:
  """Whether a leaf is an array of two axes or more that is not called embedding."""
  return len(leaf.shape) > 1 and not path.endswith("embedding")


def mask_of(params: Params, trained: str) -> Params:
  """Pytree of bools: which leaves `Subset.trained` names."""

  def trains(path, leaf) -> bool:
    name = path_of(path)
    if trained == MATRICES:
      return is_matrix(name, leaf)
    if trained == NO_EMBEDDINGS:
      return not name.endswith("embedding")
    return trained == ALL or f"{name}/".startswith(f"{trained}/")

  return jax.tree_util.tree_map_with_path(trains, params)
