"""Any assembled Tracr model as a Flax module and a parameter pytree.

Example, a program of your own:

    from tracr.rasp import rasp
    from finetune_wrappers.models import tracr_codec, tracr_compile, tracr_port

    is_x = (rasp.tokens == "x").named("is_x")
    everywhere = rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.TRUE)
    share_of_x = rasp.numerical(rasp.Aggregate(everywhere, rasp.numerical(rasp.Map(int, is_x)), default=0))
    assembled = tracr_compile.compile_program(share_of_x, vocab={"x", "y"}, max_seq_len=5)
    model, params = tracr_port.port(assembled)
    codec = tracr_codec.codec(assembled)
    tokens = codec.encode(list("xyxxy"))[None]
    model.apply({"params": params}, tokens).logits[0, 1:, 0]    # 0.6 at every letter
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from tracr.compiler.assemble import AssembledTransformerModel

from finetune_wrappers.models import tracr_compile
from finetune_wrappers.models.tracr_codec import Codec
from finetune_wrappers.models.tracr_model import TracrTransformer
from finetune_wrappers.types import InputError, Params


def port(assembled: AssembledTransformerModel) -> tuple[TracrTransformer, Params]:
  """The Flax module and parameters of the same function as the Haiku model.

  Args:
    assembled: from `tracr_compile.compile_program` or straight from Tracr; its parameters may have been
      changed (noised, trained) since.

  Returns:
    (model, params): `model.apply({"params": params}, tokens)` is a ModelOutput; params are float32.

  Raises:
    InputError: for an architecture that Tracr can express and this port does not (normalisation, another
      non-linearity than ReLU, an unembedding that is not a projection).
  """
  config = assembled.model_config
  if config.layer_norm or config.activation_function is not jax.nn.relu:
    raise InputError("assembled: only Tracr models with ReLU and without layer norm can be ported")
  vocab_size, width = assembled.params["token_embed"]["embeddings"].shape
  model = TracrTransformer(
    vocab_size=vocab_size,
    max_positions=assembled.params["pos_embed"]["embeddings"].shape[0],
    width=width,
    num_layers=config.num_layers,
    num_heads=config.num_heads,
    key_size=config.key_size,
    mlp_hidden_size=config.mlp_hidden_size,
    answer_channels=_answer_channels(tracr_compile.unembedding(assembled)),
    causal=config.causal,
  )
  return model, port_params(assembled.params, config.num_layers)


def port_params(haiku_params: Any, num_layers: int) -> Params:
  """Tracr's Haiku parameters under the port's names, float32.

  Args:
    haiku_params: `{"transformer/layer_i/attn/query": {"w", "b"}, ...}`.
    num_layers: blocks.
  """

  def array(module: str, name: str) -> np.ndarray:
    return np.asarray(haiku_params[module][name], np.float32)

  def affine(module: str) -> dict:
    return {"kernel": array(module, "w"), "bias": array(module, "b")}

  params: dict[str, Any] = {
    "token_embed": {"embedding": array("token_embed", "embeddings")},
    "pos_embed": {"embedding": array("pos_embed", "embeddings")},
  }
  for i in range(num_layers):
    layer = f"transformer/layer_{i}"
    params[f"blocks_{i}"] = {
      "attn": {name: affine(f"{layer}/attn/{name}") for name in ("query", "key", "value", "linear")},
      "mlp": {name: affine(f"{layer}/mlp/{name}") for name in ("linear_1", "linear_2")},
    }
  return params


def aligned(
  model: TracrTransformer, params: Params, codec: Codec, *, tokens: tuple, labels: tuple
) -> tuple[TracrTransformer, Params]:
  """The same model with a task's token ids and order of labels; Tracr's own may differ between processes.

  Args:
    model: from `port`.
    params: from `port`.
    codec: of the same assembled model.
    tokens: the symbol of each token id.
    labels: the answer of each label, all or some of the program's; a numerical program has one logit for all.

  Raises:
    InputError: if the program reads other tokens, or cannot give one of the answers.
  """
  rows = _places("vocab", "token", tokens, codec.tokens)
  model = model.clone(vocab_size=len(rows))
  params = {**params, "token_embed": {"embedding": params["token_embed"]["embedding"][rows]}}
  if codec.labels:
    places = _places("labels", "answer", labels, codec.labels)
    model = model.clone(answer_channels=tuple(model.answer_channels[place] for place in places))
  return model, params


def _places(field: str, what: str, wanted: tuple, given: tuple) -> list[int]:
  for symbol in wanted:
    if symbol not in given:
      raise InputError(f"{field}: the compiled program has no {what} {symbol!r}; it has {' '.join(map(str, given))}")
  return [given.index(symbol) for symbol in wanted]


def _answer_channels(unembedding_DxV: np.ndarray) -> tuple[int, ...]:
  channels = unembedding_DxV.argmax(axis=0)
  projection = np.zeros_like(unembedding_DxV)
  projection[channels, np.arange(len(channels))] = 1.0
  if not np.array_equal(projection, unembedding_DxV):
    raise InputError("assembled: its unembedding must read one residual direction for each label")
  return tuple(int(channel) for channel in channels)


def describe(model: TracrTransformer) -> dict[str, Any]:
  """The module's attributes as JSON values; `restore` makes the module from them again."""
  fields = (field.name for field in dataclasses.fields(model) if field.name not in ("parent", "name"))
  return {name: getattr(model, name) for name in fields}


def restore(description: dict[str, Any]) -> TracrTransformer:
  """The module that `describe` described."""
  return TracrTransformer(**{**description, "answer_channels": tuple(description["answer_channels"])})
