"""Did fine-tuning delete a capability, or only wrap it?

A JAX/Flax reproduction of Jain et al., "Mechanistically analyzing the effects of fine-tuning on
procedurally defined tasks" (ICLR 2024, arXiv 2311.12786), and its procedures for anyone's model and task:

    import finetune_wrappers as fw
    fw.prune(model, params, task, fw.PruneSettings(...)).rows()

The names below are imported when they are first used, so that importing the package is cheap and touches no device.
"""

import importlib
from typing import Any

_NAMES = {
  "types": ("Batch", "InputError", "ModelOutput"),
  "models.model": ("FlaxModel", "FunctionModel", "Model"),
  "models.gpt": ("GPT", "GPTConfig"),
  "models.llama": ("Llama",),
  "models.llama_layers": ("LlamaConfig",),
  "models.generate": ("generate",),
  "models.tracr_codec": ("codec",),
  "models.tracr_compile": ("compile_program",),
  "models.tracr_port": ("port",),
  "models.tracr_stage": ("compile_task",),
  "tasks.task": ("Categorical", "Numerical", "Task"),
  "tasks.programs": ("ProgramTask", "offset"),
  "tasks.functions": ("FunctionTask",),
  "tasks.tracr_tasks": ("CounterTask", "MaxIdentifierTask"),
  "tasks.pcfg_tasks": ("PCFGTask",),
  "tasks.pcfg_text": ("PCFGText",),
  "tasks.stories.task": ("StoryTask",),
  "tasks.stories.maker": ("StoryMaker",),
  "tasks.stories.real": ("StoryFiles",),
  "tasks.stories.tokenizer": ("StoryTokenizer",),
  "training.objectives": ("Answers", "MixedAnswers", "Objective", "Text"),
  "training.stories": ("StoryScores", "StoryText"),
  "training.story_classifier": ("StoryClassifier",),
  "training.methods": ("Method", "Subset"),
  "training.optim": ("SGD", "AdamW", "Optimizer"),
  "training.evaluators": ("Accuracies", "Evaluator", "Metric"),
  "training.swept": ("swept",),
  "training.run": ("TrainedRun", "train"),
  "training.stages": ("CompileStage", "GivenStage", "InitStage", "TrainStage"),
  "training.store": ("Store",),
  "training.loop": ("Trainer",),
  "analysis": (
    "Observed",
    "ProbeSettings",
    "Probed",
    "PruneSettings",
    "Pruned",
    "Revival",
    "observe",
    "probe",
    "prune",
    "revive",
  ),
  "analysis.feature_probes": ("FeatureProbeSettings", "FeatureProber"),
  "reporting.compare": ("compare_runs",),
  "reporting.rows": ("make_row", "read_rows", "write_rows"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
