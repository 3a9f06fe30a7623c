"""Packaging. Exact versions that the tests ran with are in constraints/; bounds here say what may work."""

from setuptools import find_packages, setup

# Lower bounds of the JAX family are the oldest versions the tests run with (constraints/py311.txt); upper bounds
# stop at the next release that is allowed to break us. Reasons beyond that are on the line.
REQUIREMENTS = [
  "absl-py>=2.3.1,<3",
  "chex>=0.1.92,<0.2",
  "dm-haiku>=0.0.17,<0.1",  # only to run what Tracr compiles
  "etils[epath]>=1.9,<2",  # paths of any kind: local, gs://
  "flax>=0.12.8,<0.13",  # the Linen API
  "grain>=0.2.18,<0.3",  # order of stories; its shuffle of an epoch is part of what a seed means
  "jax>=0.10.2,<0.13",  # 0.10 is the last for Python 3.11; 0.12 is the newest that Python 3.12 was tested with
  "jaxlib>=0.10.2,<0.13",
  "matplotlib>=3.10,<4",
  "ml_collections>=1.1,<2",
  "ml_dtypes>=0.5,<1",  # bfloat16 for NumPy, in files of models
  "numpy>=2.2,<3",
  "optax>=0.2.8,<0.3",
  "orbax-checkpoint>=0.12.8,<0.13",  # its newer API still lives under `experimental` and moves between minors
  "protobuf>=5,<8",  # to write a sentencepiece model
  "safetensors>=0.8,<0.9",
  "scipy>=1.17,<2",
  "sentencepiece>=0.2.3,<0.3",  # how texts are cut is part of what a tokenizer file means
  "tqdm>=4.66,<5",
  "tracr-pypi==1.0.*",  # 1.0.0 is upstream commit 9ce2b8c; our notes on its traps hold for that one
]

EXTRAS = {
  "test": [
    "hypothesis>=6.130,<7",
    "nltk>=3.9,<4",  # its PCFG is what ours is tested against, and the benchmark of the sampler runs it too
    "pyright[nodejs]>=1.1.414,<1.2",  # [nodejs] brings Node as a wheel; plain pyright downloads it from nodejs.org
    "pytest>=9,<10",
    "pytest-xdist>=3.8,<4",
    "ruff>=0.17,<0.18",  # formatting changes between minor versions
    "setuptools>=84,<85",  # a test builds the wheel without network; from 70.1 it needs no `wheel` package for that
  ],
  "bench": ["torch>=2.4,<3"],  # only for the side-by-side with a PyTorch minGPT and Llama
  # What the files of Llama models are checked against. Not in `test`: torch from PyPI is 3 GB. Without it the tests
  # compare with numbers that transformers gave (tests/data/llama_golden.json).
  "interchange": ["torch>=2.4,<3", "transformers>=5.24,<6"],
  "notebooks": ["ipykernel>=6.29,<8", "nbclient>=0.10,<1", "nbformat>=5.10,<6"],
  "cuda": ["jax[cuda12]"],
  "tpu": ["jax[tpu]", "etils[epath-gcs]>=1.9,<2"],
}

setup(
  name="finetune_wrappers",
  version="0.1.0",
  description="A JAX/Flax reproduction of 'Mechanistically analyzing the effects of fine-tuning on "
  "procedurally defined tasks' (ICLR 2024)",
  license="Apache-2.0",
  # The explicit root makes an editable install one path entry, so a package added later is found without
  # installing again, and type checkers can follow it.
  package_dir={"": "."},
  # experiments/ and configs/ run from a checkout: names this common do not belong in site-packages.
  packages=find_packages(include=["finetune_wrappers*"]),
  package_data={"finetune_wrappers.reporting": ["paper_tables/*"]},
  python_requires=">=3.11",
  install_requires=REQUIREMENTS,
  extras_require=EXTRAS,
)
