"""Reports of the PCFG half on rows made by hand: what they claim, and that they draw."""

import itertools

import pytest
from handmade import facts_of

from configs import fig05_behaviour, fig24_jailbreak
from experiments.reports import jailbreaks, mixing, pcfg_behaviour, pcfg_curves, pcfg_labels, probes, pruning, revival
from finetune_wrappers.reporting.rows import make_row

COMMON = {"experiment": "by_hand", "setting": "pcfg", "task": "counting"}
FACTS = facts_of(fig05_behaviour.get_config("smoke"))
PRIORS = ("low", "high")
SEEDS = (0, 1, 2)


def row(stage, metric, value, *, seed=0, step=200, **fields):
  return make_row(**COMMON, stage=stage, metric=metric, value=value, seed=seed, step=step, **fields)


def guesses():
  return [
    row("data", "guess_baseline", 0.2, step=0, operand=operand, c_te=c_te)
    for operand, c_te in itertools.product(("pt", "ft"), (0, 1))
  ]


def finetuned(value_of, steps=(0, 200)):
  """Accuracy rows of every prior, C_Tr, test set and seed; value_of(prior, c_tr, metric, c_te, step)."""
  rows = guesses()
  axes = itertools.product(PRIORS, ("acc_pt", "acc_ft"), (0, 1), SEEDS)
  for prior, metric, c_te, seed in axes:
    shared = {"seed": seed, "c_te": c_te, "prior": prior, "pretraining_steps": 600}
    rows.append(row("pretrain", metric, 0.99, step=600, **shared))
    for c_tr, step in itertools.product((0.0, 1.0), steps):
      value = value_of(prior, c_tr, metric, c_te, step) + 0.001 * seed
      swept = {"learning_rate": 1e-4, "c_tr": c_tr, "target": "ft", "mix": 0.0}
      rows.append(row("finetune", metric, value, step=step, **shared, **swept))
  return rows


def papers(prior, c_tr, metric, c_te, step):
  """As the paper saw it."""
  if step == 0:
    return 0.95 if metric == "acc_pt" else 0.1
  if metric == "acc_pt":
    return 0.0
  return 0.98 if c_tr == 0 or c_te == 1 else {"low": 0.0, "high": 0.6}[prior]


def answers(made):
  """Of the claims, in the order they are printed."""
  return [line.split(" | ")[1] for line in made.verdict.splitlines()[2:]]


def test_behaviour_answers_the_papers_pattern_with_yes():
  made = pcfg_behaviour.make(finetuned(papers), {}, FACTS)
  assert answers(made) == ["yes", "yes", "yes"]
  text = dict(made.sections)["Accuracies"]
  assert "η_L 0.0001" in text and "pretrained" in text


@pytest.mark.parametrize(
  ("change", "expected"),
  [
    (lambda prior, c_tr, metric, c_te: c_tr == 0 and metric == "acc_ft", ["no", "yes", "yes"]),
    (lambda prior, c_tr, metric, c_te: c_tr == 1 and c_te == 1 and metric == "acc_ft", ["yes", "no", "yes"]),
    (lambda prior, c_tr, metric, c_te: c_tr == 1 and prior == "high", ["yes", "yes", "no"]),
  ],
)
def test_each_claim_of_behaviour_can_fail(change, expected):
  def value_of(prior, c_tr, metric, c_te, step):
    return 0.02 if change(prior, c_tr, metric, c_te) else papers(prior, c_tr, metric, c_te, step)

  assert answers(pcfg_behaviour.make(finetuned(value_of), {}, FACTS)) == expected


def test_curves_say_whether_o_pt_falls():
  assert answers(pcfg_curves.make(finetuned(papers), {}, FACTS)) == ["yes"]
  kept = finetuned(lambda prior, c_tr, metric, c_te, step: 0.9)
  assert answers(pcfg_curves.make(kept, {}, FACTS)) == ["no"]


def labels(shift, apart=0):
  rows = guesses()
  for operand, c_tr, label in itertools.product(("pt", "ft"), (0.0, 1.0), range(10)):
    fields = {
      "operand": operand,
      "c_tr": c_tr,
      "label": str(label + (shift if c_tr else 0) + (apart if operand == "ft" else 0)),
    }
    rows.append(row("data", "label_share", 0.1, step=0, **fields))
  return rows


def test_labels_that_move_with_c_tr_are_not_alike():
  assert answers(pcfg_labels.make(labels(0), {}, FACTS)) == ["yes", "yes", "yes"]
  assert answers(pcfg_labels.make(labels(2), {}, FACTS)) == ["no", "yes", "yes"]
  assert answers(pcfg_labels.make(labels(0, apart=2), {}, FACTS)) == ["yes", "no", "yes"]


def probed(before, after, negative, steps=600):
  rows = []
  models = [("pretrain", "low", before, {}), ("never", "without_a", negative, {})]
  tuned = {"learning_rate": 1e-4, "target": "ft", "mix": 0.0}
  models += [("finetune", "low", after, {**tuned, "c_tr": c_tr}) for c_tr in (0.0, 1.0)]
  for (model, prior, accuracy, swept), seed in itertools.product(models, SEEDS):
    shared = {"seed": seed, "model": model, "prior": prior, "pretraining_steps": steps, **swept}
    shared |= {"family": "counting"}
    for reads in ("pt", "ft", "control_pt", "control_ft"):
      rows.append(row("probe", "guess_baseline", 0.1, reads=reads, **shared))
      for block in (0, 1):
        value = accuracy + 0.001 * seed if block and not reads.startswith("control") else 0.1
        rows.append(row("probe", "acc_probe", value, reads=reads, block=block, **shared))
  return rows


@pytest.mark.parametrize(
  ("accuracies", "expected"),
  [
    ((0.9, 0.9, 0.3), ["yes", "yes", "yes"]),
    ((0.9, 0.5, 0.3), ["no", "no", "yes"]),
    ((0.9, 0.9, 0.9), ["yes", "yes", "no"]),
    ((0.1, 0.1, 0.1), ["not judged", "not judged", "no"]),
  ],
)
def test_probes_are_judged_beside_what_never_had_o_pt(accuracies, expected):
  made = probes.make(probed(*accuracies), {}, FACTS)
  assert answers(made) == expected
  assert ("saturated" in made.verdict) == (accuracies[2] == 0.9)


def test_revival_tells_priors_apart():
  """Two priors, of which one comes back at once: not one model with six runs."""
  rows = guesses()
  for seed, step in itertools.product(SEEDS, (0, 10, 100)):
    shared = {"seed": seed, "step": step, "c_te": 0, "reft_learning_rate": 1e-5, "reft_c_tr": 0.0}
    for prior, back in (("low", 100), ("high", 10)):
      swept = {"prior": prior, "pretraining_steps": 600, "learning_rate": 1e-4, "c_tr": 1.0, "target": "ft", "mix": 0.0}
      rows.append(row("reft", "acc_pt", 0.95 if step >= back else 0.1, **shared, **swept))
    rows.append(row("scratch_ft", "acc_pt", 0.1, **shared, prior="without_a", pretraining_steps=600))
  made = revival.make(rows, {}, FACTS)
  assert "high prior, η_L 0.0001, C_Tr 1" in made.verdict and "low prior, η_L 0.0001, C_Tr 1" in made.verdict
  table = dict(made.sections)["Revival"]
  medians = {line.split(" | ")[1]: line.split(" | ")[4] for line in table.splitlines() if " prior, " in line}
  assert [medians[f"{prior} prior, η_L 0.0001, C_Tr 1"] for prior in PRIORS] == ["100", "10"]


def test_revival_compares_within_one_n_iters():
  """The control of 10 000 iterations learns late, that of 50 000 at once: only the latter is sooner than reFT."""
  rows = guesses()
  for seed, step, n_iters in itertools.product(SEEDS, (0, 10, 20, 50, 100), (10_000, 50_000)):
    shared = {"seed": seed, "step": step, "c_te": 0, "reft_learning_rate": 1e-5, "reft_c_tr": 0.0}
    own = {"pretraining_steps": n_iters}
    swept = {"prior": "low", "learning_rate": 1e-4, "c_tr": 1.0, "target": "ft", "mix": 0.0, **own}
    rows.append(row("reft", "acc_pt", 0.95 if step >= 20 else 0.1, **shared, **swept))
    learned = 0.95 if step >= {10_000: 100, 50_000: 10}[n_iters] else 0.1
    rows.append(row("scratch_ft", "acc_pt", learned, **shared, prior="without_a", **own))
  made = revival.make(rows, {}, FACTS)
  sooner = {line.split(":")[0]: line.split(" | ")[1] for line in made.verdict.splitlines() if "sooner than" in line}
  assert {name.split()[-1]: answer for name, answer in sooner.items()} == {"10000": "yes", "50000": "no"}


def test_behaviour_stands_beside_the_papers_table_where_it_has_the_cell():
  rows = guesses()
  for seed, (metric, c_te) in itertools.product(SEEDS, itertools.product(("acc_pt", "acc_ft"), (0, 1))):
    shared = {"seed": seed, "c_te": c_te, "prior": "low", "pretraining_steps": 200_000}
    rows.append(row("pretrain", metric, 0.99, step=200_000, **shared))
    swept = {"learning_rate": 1e-5, "c_tr": 1.0, "target": "ft", "mix": 0.0}
    rows.append(row("finetune", metric, 0.5, step=10_000, **shared, **swept))
  text = dict(pcfg_behaviour.make(rows, {}, FACTS).sections)["Beside the paper's"]
  # The paper, Tab. 5 at 10K: O_PT 17.5 and 0 at C_Te = 0 and 1, O_FT 0 and 100.
  assert f"over 4 cells: {(32.5 + 50 + 50 + 50) / 4:.1f} points" in text
  assert "17.5" in text and "-50.0" in text
  nothing = dict(pcfg_behaviour.make(finetuned(papers), {}, FACTS).sections)["Beside the paper's"]
  assert "no model here" in nothing


def test_behaviour_tells_shares_of_mixed_in_samples_apart():
  rows = finetuned(papers)
  rows += [{**row, "mix": 0.1, "value": 0.3} for row in rows if row["stage"] == "finetune"]
  made = pcfg_behaviour.make(rows, {}, FACTS)
  assert "low prior, 10 % mixed in (no): 30.0" in made.verdict and "low prior (yes): " in made.verdict
  assert answers(made) == ["partly", "partly", "partly"]


@pytest.mark.parametrize(
  ("accuracies", "expected"),
  [
    ({"counting": 0.1, "counting_j1": 0.99, "counting_j2": 0.98}, ["yes", "yes"]),
    ({"counting": 0.9, "counting_j1": 0.99, "counting_j2": 0.98}, ["no", "yes"]),
    ({"counting": 0.1, "counting_j1": 0.99, "counting_j2": 0.5}, ["yes", "no"]),
  ],
)
def test_jailbreaks_are_judged_by_token(accuracies, expected):
  rows = guesses()
  swept = {"pretraining_steps": 600, "c_te": 0}
  for prior, seed, (family, value) in itertools.product(PRIORS, SEEDS, accuracies.items()):
    shared = {"seed": seed, "prior": prior, "family": family, **swept}
    rows.append(row("jailbreak", "acc_pt", 0.99, model="pretrain", **shared))
    # T_J1 and T_J2 are claimed for the high prior only.
    value = value if prior == "high" or family == "counting" else 0.3
    rows.append(row("jailbreak", "acc_pt", value, model="finetune", learning_rate=1e-4, c_tr=1.0, **shared))
  made = jailbreaks.make(rows, {}, facts_of(fig24_jailbreak.get_config("smoke")))
  assert answers(made) == expected
  assert {"T_NJ, C_Te=0", "T_J2, C_Te=0"} <= set(dict(made.sections)["Acc. O_PT by family token"].split(" | "))
  joined = jailbreaks.make(rows + probed(0.9, 0.9, 0.3), {}, FACTS)
  assert set(joined.figures) == {"figure", "probes"} and "Probes: At the last block" in dict(joined.sections)


@pytest.mark.parametrize(("kept", "expected"), [(0.97, ["yes", "yes"]), (0.3, ["no", "yes"]), (0.02, ["no", "no"])])
def test_mixing_says_whether_o_pt_stays(kept, expected):
  def value_of(prior, c_tr, metric, c_te, step):
    return 0.01 if metric == "acc_pt" else 0.9

  rows = finetuned(value_of)
  mixed = [{**row, "mix": 0.5} for row in rows if row["stage"] == "finetune"]
  rows += [{**row, "value": kept + 0.001 * row["seed"]} if row["metric"] == "acc_pt" else row for row in mixed]
  text = mixing.make(rows, {}, FACTS).verdict
  assert text.startswith("Questions that the paper's App. E.1 raises") and "50 % mixed in" in text
  assert [line.split(" | ")[1] for line in text.splitlines()[4:6]] == expected


def test_probes_of_two_n_iters_stand_apart():
  made = probes.make(probed(0.9, 0.9, 0.3) + probed(0.9, 0.5, 0.3, steps=1200), {}, FACTS)
  assert answers(made) == ["partly", "partly", "yes"]
  assert "n_iters 1200, low prior, η_L 0.0001, C_Tr 1 (no): 90.1" in made.verdict
  titles = [axis.get_title(loc="left") for axis in made.figures["figure"].axes]
  assert sum("n_iters 1200" in title.replace("\n", " ") for title in titles) == 2


def test_two_n_iters_have_their_own_pretrained_models():
  rows = finetuned(papers)
  rows += [{**row, "pretraining_steps": 1200, **({"step": 1200, "value": 0.5} if row["stage"] == "pretrain" else {})}
           for row in rows if row["stage"] != "data"]  # fmt: skip
  made = pcfg_behaviour.make(rows, {}, FACTS)
  lines = [line.split(" | ") for line in dict(made.sections)["Accuracies"].splitlines() if "pretrained" in line]
  assert {(line[1], line[5][:4]) for line in lines} == {("600", "99.0"), ("1200", "50.0")}
  assert len(made.figures) == 2


def test_nothing_is_judged_lost_that_was_never_had():
  rows = [{**row, "value": 0.2} if row["metric"] == "acc_pt" else row for row in finetuned(papers)]
  assert answers(pcfg_curves.make(rows, {}, FACTS)) == ["not judged"]
  mixed = [{**row, "mix": 0.5} for row in rows if row["stage"] == "finetune"]
  text = mixing.make(rows + mixed, {}, FACTS).verdict
  assert [line.split(" | ")[1] for line in text.splitlines()[4:6]] == ["not judged", "not judged"]


@pytest.mark.parametrize(("after", "answer"), [(0.5, "yes"), (0.95, "no")])
def test_pruning_says_whether_o_ft_falls_where_o_pt_comes_back(after, answer):
  rows = [row("prune", "guess_baseline", 0.1, step=0, operand="pt", c_te=0)]
  swept = {"unit": "neuron", "scope": "blocks", "learning_rate": 1e-4, "target": "ft", "mix": 0.0, "c_tr": 1.0}
  swept |= {"prior": "low", "pretraining_steps": 600}
  for seed, k, score, c_te in itertools.product(SEEDS, (0, 4), ("gradient", "random"), (0, 1)):
    shared = {"seed": seed, "k": k, "score": score, "c_te": c_te, **swept}
    lifted = k and score == "gradient"
    rows.append(row("prune", "acc_pt", 0.6 if lifted else 0.0, **shared))
    rows.append(row("prune", "acc_ft", after if lifted else 1.0, **shared))
  made = pruning.make(rows, {}, FACTS)
  assert answers(made) == ["yes", answer]
  assert f"100.0 [100.0, 100.0] to {100 * after:.1f}" in made.verdict and "at K = 4" in made.verdict
