# `make demo` and `make test` do all set-up themselves; it is skipped once it is done.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint setup testbed clean

demo: $(STAMP)
	$(BIN)/dreamprm demo --output-dir demo

test: $(STAMP)
	$(BIN)/python -m pytest -q

lint: $(STAMP)
	$(BIN)/ruff check src tests experiments benchmarks
	$(BIN)/ruff format --check src tests experiments benchmarks
	$(BIN)/mypy src

setup: $(STAMP)

# The evidence table in docs/results: about an hour and a half on two cores.
SEEDS ?= 101 102 103 104 105
testbed: $(STAMP)
	$(BIN)/python -m experiments.testbed data --seeds $(SEEDS)
	$(BIN)/python -m experiments.testbed train --seeds $(SEEDS)
	$(BIN)/python -m experiments.testbed data --control --seeds $(SEEDS)
	$(BIN)/python -m experiments.testbed train --control --seeds $(SEEDS) --methods prm_uniform dreamprm
	$(BIN)/python -m experiments.testbed_table --seeds $(SEEDS)

# torch first and pinned: a plain `torch` may bring gigabytes of GPU libraries to a machine without one.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; set PYTHON=python3.12, say"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf demo build dist
