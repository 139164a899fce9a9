# make eval   set up, then attack and certify a shipped model
# make test   set up with the development tools and run the tests in their short form
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-warn-conflicts --constraint constraints.txt

# as the package sets them for itself, here for tests that import torch first
export MKL_CBWR := AUTO
export OMP_WAIT_POLICY := passive

.PHONY: eval test test-gpu test-slurm test-all lint bench records leaderboard zoo explanations sparse lirpa clean

eval: $(VENV)/.eval
	$(BIN)/robust-eval --model fmnist-cnn-mtl-ibp --attack pgd --certify cascade

# One thread each: two tests side by side are faster than one on two threads.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --benchmark-disable -m "not slow and not bench and not gpu and not slurm and not vnncomp"

# On a Slurm cluster of one node that the tests start (Debian: slurm-wlm, munge); else left out.
test-slurm: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/slurm -m "slurm and not slow" -rs

# What hangs on the device, on CUDA; all of it is skipped, with a line, where there is none.
test-gpu: $(VENV)/.dev
	$(BIN)/python -m pytest -m gpu -rs

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest

bench: $(VENV)/.dev
	env -u OMP_WAIT_POLICY $(BIN)/python -m pytest tests/benchmarks -s

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Rebuilds the models that are shipped (about half an hour on two cores); needs full Fashion-MNIST.
zoo: $(VENV)/.eval
	$(BIN)/python scripts/make_zoo.py

# Evaluates the models of docs/explanation-table.md anew; needs full Fashion-MNIST, and Adult.
explanations: $(VENV)/.eval
	$(BIN)/python scripts/explanation_table.py

# Trains and evaluates the models of docs/sparse-table.md (hours); needs full Fashion-MNIST.
sparse: $(VENV)/.eval
	$(BIN)/python scripts/sparse_table.py

# Makes the records of the shipped models that are not there (two hours on one core; Adult: docs/data.md).
records: $(VENV)/.eval
	$(BIN)/robust-eval --suite zoo --out records --workers 2

# The site of these records.
leaderboard: $(VENV)/.eval
	$(BIN)/robust-leaderboard build records --out site --title "The shipped models"

lirpa: $(VENV)/bin/python
	scripts/install_lirpa.sh $(BIN)/python

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.eval: pyproject.toml constraints.txt scripts/install_lirpa.sh | $(VENV)/bin/python
	$(PIP) --editable .
	scripts/install_lirpa.sh $(BIN)/python
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt scripts/install_lirpa.sh | $(VENV)/bin/python
	$(PIP) --editable ".[dev]"
	scripts/install_lirpa.sh $(BIN)/python
	@touch $@ $(VENV)/.eval

clean:
	rm -rf $(VENV) build dist *.egg-info
