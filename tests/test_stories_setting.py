"""The stories setting on files, from the command's config to the summary; what cannot be is told before training."""

import pathlib

import pytest
from story_tasks import files_in

from configs import tab01_generation
from experiments import runner
from finetune_wrappers.reporting.rows import read_rows, select
from finetune_wrappers.types import InputError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """Two of the thousand training records are malformed."""
  train, valid = files_in(tmp_path_factory.mktemp("files"), held_out=300)
  documents = pathlib.Path(train).read_text().split("<|endoftext|>")
  documents[3], documents[4] = "\nFeatures: Twist\nno label\n", "\nFeatures: Plot\nStory:\nOnce.\n"
  pathlib.Path(train).write_text("<|endoftext|>".join(documents))
  return train, valid


def config_of(files, **changed):
  config = tab01_generation.get_config("smoke")
  dotted = {
    "files.train": files[:1], "files.valid": files[1:], "stories.tokenizer_stories": 900, "seeds": (0,),
    "finetune.protocols": ("filter",), "model.blocks": 1,
  }  # fmt: skip
  config.update_from_flattened_dict(dotted | changed)
  return config


def test_files_are_trained_on_and_malformed_records_told(files, tmp_path):
  folder, *_ = runner.run(config_of(files), str(tmp_path))
  rows = read_rows(folder / "rows.jsonl")
  assert [row["value"] for row in select(rows, metric="left_out")] == [1, 1]
  summary = (folder / "summary.md").read_text()
  begin = pathlib.Path(files[0]).read_text().split("<|endoftext|>")[:3]
  line = 2 + "<|endoftext|>".join(begin).count("\n")
  assert f"| train | 1 | no story; first at {files[0]}:{line} |" in summary
  assert "| train | 1 | a feature that is none of Dialogue" in summary
  readers = {row["reads"] for row in select(rows, metric="acc_judge")}
  assert readers == {"classifier", "bag_of_words"}  # the maker's rule reads made stories only
  kept = sorted(path.name.rsplit("-", 1)[0] for path in (tmp_path / "data").iterdir())
  assert kept == [
    "classifier", "test-none", "tokenizer", "train-filter", "train-none", "train-only_twist", "valid-none",
  ]  # fmt: skip


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"files.valid": ("none.txt",)}, r"\Afiles\.valid: none\.txt cannot be read \(No such file or directory\)\Z"),
    (
      {"files.bad_share": 0.0, "stories.stories": 0},
      r"\Abad_share: 2 of \d+ records are malformed, more than 0; .*a\.txt:\d+\Z",
    ),
    ({"scores.classifier.story_length": 128}, r"\Ascores\.classifier\.story_length: 128 .*stories\.length \(128\)\Z"),
    (
      {"scores.classifier.story_length": 120},
      r"\Ascores\.classifier\.story_length: 120 .* at most stories\.length \(128\) less the \d+ tokens of the longest",
    ),
    ({"scores.prompts": 100}, r"\Astories\.held_out: \d+ of the 128 stories of the split test are with Twist, 100 are"),
    ({"scores.eval_size": 100}, r"\Astories\.held_out: \d+ of the 128 stories of the split test are with"),
    ({"stories.vocab_size": 50_000}, r"\Avocab_size: 50000 is more than the texts give"),
    ({"scores.classifier.width": 6}, r"\Ascores\.classifier\.width: 6 is not allowed; use a multiple of 4\Z"),
    ({"stories.partner": "Twist"}, r"\Astories\.partner: 'Twist' is not allowed"),
  ],
)
def test_what_cannot_be_is_one_line_before_anything_is_trained(files, tmp_path, changed, message):
  with pytest.raises(InputError, match=message) as caught:
    runner.run(config_of(files, **changed), str(tmp_path))
  assert "\n" not in str(caught.value)
  assert not any((tmp_path / "stages").glob("*")) and not any((tmp_path / "cohorts").glob("*"))
