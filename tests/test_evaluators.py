"""Accuracies against counting by hand."""

import jax
import numpy as np
from tiny import MODEL, TASK, params_of

from finetune_wrappers.training.evaluators import Accuracies

PARAMS = params_of(MODEL)


def test_accuracies_count_right_answers():
  accuracies = Accuracies(40)
  tests = jax.tree.map(np.asarray, accuracies.test_sets(TASK))
  got = jax.jit(lambda params: accuracies.measure(MODEL, params, TASK, tests))(PARAMS)
  logits_of = jax.jit(lambda tokens: MODEL.apply({"params": PARAMS}, tokens).logits)
  expected = []
  for metric in accuracies.metrics(TASK):
    tokens = tests[dict(metric.fields)["c_te"]].tokens
    logits = np.asarray(logits_of(tokens))[:, 2]
    letter = {"acc_pt": 0, "acc_ft": 1}[metric.name]
    right = [list(row).count(letter) == answer.argmax() for row, answer in zip(tokens, logits, strict=True)]
    expected.append(sum(right) / 40)
  assert len(set(expected)) == 4, "the four must differ for their order to be seen"
  np.testing.assert_allclose(got, expected, atol=1e-6)
  names = [(metric.name, *metric.fields) for metric in accuracies.metrics(TASK)]
  c_te_0, c_te_1 = ("c_te", 0), ("c_te", 1)
  assert names == [("acc_pt", c_te_0), ("acc_ft", c_te_0), ("acc_pt", c_te_1), ("acc_ft", c_te_1)]


def test_a_task_without_a_correlation_is_measured_once():
  plain = TASK._replace(correlated=False)
  assert [metric.fields for metric in Accuracies(40).metrics(plain)] == [(("c_te", 0),)] * 2
  tests = Accuracies(40).test_sets(plain)
  assert list(tests) == [0]
  with_it = jax.jit(lambda p: Accuracies(40).measure(MODEL, p, TASK, Accuracies(40).test_sets(TASK)))(PARAMS)
  without = jax.jit(lambda p: Accuracies(40).measure(MODEL, p, plain, tests))(PARAMS)
  np.testing.assert_array_equal(without, with_it[:2])
