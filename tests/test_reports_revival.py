"""Reports on reverse fine-tuning, from curves made by hand: medians, censored and diverged runs, randFT, rates."""

import pytest
from handmade import GONE, answers, passage_rows, reft_rows

from experiments.reports import revival


@pytest.mark.parametrize(
  ("reft", "control", "answer", "median", "ratio"),
  [
    ([10, 10, 10], [100, 100, 200], "yes", "10", "10.0"),
    ([10, 10, 20], [100, 100, 200], "partly", "10", "10.0"),
    ([100, 100, 200], [10, 10, 20], "no", "100", "0.1"),
    ([20, 20, 20], [20, 20, 20], "no", "20", "1.0"),
    ([10, 20, None], [200, 200, 200], "partly", "20 (2 of 3 runs)", "10.0"),
    ([10, 10, 10], [None, None, None], "yes", "10", "at least 20.0"),
    ([None, None, None], [10, 10, 10], "no", "> 200 (0 of 3 runs)", "at most 0.1"),
    ([None, None, None], [None, None, None], "no", "> 200 (0 of 3 runs)", "-"),
    ([-10, -10, None], [100, 100, 100], "no", "> 10 (0 of 3 runs)", "at most 10.0"),
    ([10], [100], "partly", "10", "10.0"),  # one seed has no interval
    ([10, 10, GONE], [100, 100, 100], "partly", "10, diverged (1 of 3)", "10.0"),  # two seeds are too few
  ],
)
def test_revival_compares_medians_with_runs_that_never_get_there(reft, control, answer, median, ratio):
  rows = reft_rows(reft) + passage_rows("scratch_ft", control)
  lines, claim = (made("counter", 0.001, rows, 0.8) for made in (revival.table_lines, revival.compare))
  assert claim.answer == answer
  assert lines[0][:2] == ("Counter, reFT at 0.001", "η_L 0.1, C_Tr 1") and lines[1][1] == "Scr. + FT"
  assert lines[0][4] == median and lines[0][5].split(" [")[0] == ratio
  assert median in claim.evidence and ratio in claim.evidence


@pytest.mark.parametrize(
  ("reft", "median", "ratio", "answer"),
  [
    ([0, 10, 10, 10], "10, nothing to revive (1 of 4)", "10.0", "yes"),
    ([0, 0, 20], "20, nothing to revive (2 of 3)", "5.0", "partly"),  # on the mean there is nothing to revive
    ([0, GONE, 20, None], "20 (1 of 2 runs), diverged (1 of 4), nothing to revive (1 of 4)", "5.0", "partly"),
  ],
)
def test_table_and_claims_leave_out_the_same_seeds_that_have_nothing_to_revive(reft, median, ratio, answer):
  rows = reft_rows(reft) + passage_rows("scratch_ft", [100] * 3)
  line = revival.table_lines("counter", 0.001, rows, 0.8)[0]
  claim = revival.compare("counter", 0.001, rows, 0.8)
  assert line[4] == median and line[5].split(" [")[0] == ratio
  assert claim.answer == answer and f"{median} iterations, ratio {line[5]}" in claim.evidence
  assert line[2].startswith("30.0"), "the start is that of the seeds that count"
  # As if those seeds had not been run.
  rest = reft_rows([None if when == 0 else when for when in reft])
  kept = [row for row in rest if reft[row["seed"]] != 0]
  for claims in (revival.recovery_claim, lambda *given: revival.compare(*given)):
    with_them, without = (claims("counter", 0.001, own + rows[len(rest) :], 0.8) for own in (rows[: len(rest)], kept))
    assert with_them.answer == without.answer


def test_only_seeds_with_something_to_revive_decide_about_rates_and_wrong_answers():
  plain, wrong = [0, 20, 20, 20], [100, 100, 100, 100]
  both = reft_rows(plain) + reft_rows(wrong, target="random")
  (claim,) = revival.wrong_answers_claims("counter", 0.001, both, 0.8)
  assert claim.answer == "no" and "100 iterations against 20, nothing to revive (1 of 4), ratio 5.0" in claim.evidence
  large = [{**row, "reft_learning_rate": 0.01} for row in reft_rows([0, 0, 0, 10])]
  (claim,) = revival.rate_claims("counter", reft_rows(wrong) + large, 0.8)
  assert claim.answer == "partly" and "ratio of median iterations 10.0" in claim.evidence


def test_revival_is_partly_so_if_one_fine_tuned_model_is_slower():
  rows = reft_rows([10] * 3) + reft_rows([200] * 3, c_tr=0.0) + passage_rows("scratch_ft", [100] * 3)
  assert revival.compare("counter", 0.001, rows, 0.8).answer == "partly"


def test_a_network_without_training_is_a_second_control():
  rows = reft_rows([20] * 3) + passage_rows("scratch_ft", [200] * 3) + passage_rows("scratch", [10] * 3)
  by_control = {kind: revival.compare("counter", 0.001, rows, 0.8, kind) for kind in ("scratch_ft", "scratch")}
  assert (by_control["scratch_ft"].answer, by_control["scratch"].answer) == ("yes", "no")
  assert by_control["scratch"].text.endswith("sooner than Scr. learns it")
  assert [line[1] for line in revival.table_lines("counter", 0.001, rows, 0.8)[1:]] == ["Scr. + FT", "Scr."]


def test_revival_is_not_judged_where_nothing_is_left_to_compare():
  control = passage_rows("scratch_ft", [100] * 3)
  for own, reason in (([0] * 3, "nothing to revive, Acc. O_PT 90.0"), ([GONE] * 3, "diverged (3 of 3)")):
    claim = revival.compare("counter", 0.001, [*reft_rows(own), *control], 0.8)
    assert claim.answer == "not judged" and reason in claim.evidence
    claim = revival.compare("counter", 0.001, [*reft_rows(own), *reft_rows([10] * 3, c_tr=0.0), *control], 0.8)
    assert claim.answer == "yes" and reason in claim.evidence


@pytest.mark.parametrize(
  ("reft", "answer"),
  [([10, 20, 200], "yes"), ([10, 20, None], "no"), ([None] * 3, "no"), ([0, 0, 0], "not judged"), ([10], "partly")],
)
def test_the_capability_is_recovered_if_it_ends_above_the_threshold(reft, answer):
  assert revival.recovery_claim("counter", 0.001, reft_rows(reft), 0.8).answer == answer


@pytest.mark.parametrize(
  ("plain", "wrong", "answer"),
  [
    ([20, 20, 20], [20, 20, 20], "yes"),
    ([100, 100, 100], [10, 10, 10], "yes"),
    ([20, 20, 20], [20, 20, 100], "partly"),
    ([10, 10, 10], [100, 100, 100], "no"),
    ([10, 10, 10], [None, None, None], "no"),
    ([200, 200, 200], [None, None, None], "no"),  # at least as long, and nothing says at most twice
    ([None, None, None], [10, 10, 10], "yes"),
    ([None, None, None], [None, None, None], "not judged"),
    ([0, 0, 0], [20, 20, 20], "not judged"),
    ([20, 20, 20], [GONE, GONE, GONE], "not judged"),
  ],
)
def test_rand_ft_is_as_fast_if_it_takes_at_most_twice_as_long(plain, wrong, answer):
  rows = reft_rows(plain) + reft_rows(wrong, target="random")
  assert answers(revival.wrong_answers_claims("counter", 0.001, rows, 0.8)) == [answer]
  assert revival.wrong_answers_claims("counter", 0.001, reft_rows(plain), 0.8) == []


@pytest.mark.parametrize(
  ("small", "large", "answer"),
  [
    ([100, 100, 200], [10, 10, 10], "yes"),
    ([20, 100, 200], [10, 20, 100], "partly"),
    ([10, 10, 10], [100, 100, 100], "no"),
    ([None] * 3, [10, 10, 10], "yes"),
    ([None] * 3, [None] * 3, "not judged"),
    ([0, 0, 0], [0, 0, 0], "not judged"),
  ],
)
def test_a_larger_reft_rate_is_the_sooner(small, large, answer):
  faster = [{**row, "reft_learning_rate": 0.01} for row in reft_rows(large)]
  (claim,) = revival.rate_claims("counter", reft_rows(small) + faster, 0.8)
  assert claim.answer == answer and "0.01 against 0.001" in claim.evidence
  assert revival.rate_claims("counter", faster, 0.8) == []
