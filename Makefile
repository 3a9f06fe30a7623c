# `make` alone lists the targets. Everything runs from .venv, which is made on first use.

WORKDIR ?= ./runs/demo
# The first interpreter that runs and can make a virtual environment; `make PYTHON=python3.12 ...` overrides it.
PYTHON ?= $(shell for p in python3.11 python3; do $$p -c 'import ensurepip' >/dev/null 2>&1 && echo $$p && break; done)

BIN := .venv/bin
STAMP := .venv/.installed
# pyright would otherwise ask a registry for a newer version of itself on every run.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help .venv demo test test-quick lint bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv: $(STAMP) ## make .venv with pinned versions (happens by itself when needed)

$(STAMP): setup.py $(wildcard constraints/*.txt)
	@test -n "$(PYTHON)" || { echo "No python3.11 or python3 that can make a virtual environment was found." >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is too old: Python 3.11 or newer is needed (make PYTHON=...)." >&2; exit 1; }
	@echo "Installing into .venv, about 270 MB from PyPI (1.2 GB unpacked): one to five minutes ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@pins=constraints/py$$($(BIN)/python -c 'import sys; print("%d%d" % sys.version_info[:2])').txt; \
	  if test -f $$pins; then set -- -c $$pins; else echo "There is no $$pins: taking the newest allowed versions."; set --; fi; \
	  $(BIN)/pip install -qq --disable-pip-version-check "$$@" -e '.[test]'
	@touch $@

demo: $(STAMP) ## train and analyse a small example; results go to WORKDIR (./runs/demo)
	$(BIN)/python -m experiments.main --config=configs/quickstart.py:quick --workdir=$(WORKDIR)

test: $(STAMP) ## run the tests, two at a time
	$(BIN)/python -m pytest -n 2

test-quick: $(STAMP) ## run Figs. 5 to 9 at :quick and check the pattern; about 5 minutes on 2 cores
	$(BIN)/python -m pytest -m quick tests/test_quick_pcfg.py

lint: $(STAMP) ## ruff (rules and formatting) and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(STAMP) ## measure speed, about 20 minutes; for the PyTorch side first: .venv/bin/pip install -e '.[bench]'
	$(BIN)/python -m benchmarks.tracr_speed
	$(BIN)/python -m benchmarks.pcfg_sampler
	$(BIN)/python -m benchmarks.gpt_speed
	$(BIN)/python -m benchmarks.llama_speed
	$(BIN)/python -m benchmarks.story_data --megabytes=100
	$(BIN)/python -m benchmarks.sweep_speed
	$(BIN)/python -m benchmarks.analysis_speed
	$(BIN)/python -m benchmarks.startup_speed

clean: ## remove caches and build leftovers; keeps .venv, runs/ and results/
	rm -rf build dist *.egg-info .hypothesis .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +
