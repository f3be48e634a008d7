# `make demo` and `make test` do all set-up themselves; it is skipped once it is done.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Another build, say TORCH='torch --index-url ...' for your GPU; the pinned version otherwise.
TORCH ?= torch
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint coverage setup testbed testbed_hard clean

# One thread: the model is small, and two that wait for each other are slow beside other work.
demo: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/dreamprm demo --output-dir demo

# Two processes of one thread each: twice as fast on two cores as one process of two threads.
WORKERS ?= 2
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS)

lint: $(STAMP)
	$(BIN)/ruff check src tests experiments benchmarks examples
	$(BIN)/ruff format --check src tests experiments benchmarks examples
	$(BIN)/mypy src

# Which lines no test enters; the page is htmlcov/index.html.
coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --cov=dreamprm --cov-report=term:skip-covered --cov-report=html

setup: $(STAMP)

# The evidence table in docs/results: about three hours on two cores.
SEEDS ?= 101 102 103 104 105
testbed: $(STAMP)
	$(BIN)/python -m experiments.testbed data --seeds $(SEEDS)
	$(BIN)/python -m experiments.testbed train --seeds $(SEEDS)
	$(BIN)/python -m experiments.testbed data --variant control --seeds $(SEEDS)
	$(BIN)/python -m experiments.testbed train --variant control --seeds $(SEEDS) --methods prm_uniform dreamprm
	$(BIN)/python -m experiments.testbed_table --seeds $(SEEDS)

# The same on the world's hard variant, and the table of docs/CHOOSING.md: about two hours.
CHOICES ?= prm_uniform prm_oracle small_loss bis label_correction instance_table instance_net dreamprm
testbed_hard: $(STAMP)
	$(BIN)/python -m experiments.testbed data --variant hard --seeds $(SEEDS)
	$(BIN)/python -m experiments.testbed train --variant hard --seeds $(SEEDS) --methods $(CHOICES)
	$(BIN)/python -m experiments.testbed_table --variant hard --seeds $(SEEDS)

# torch first and pinned, so that nothing else chooses its version.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python found; give one of 3.11 or newer: make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt $(TORCH)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf demo dist htmlcov .coverage
