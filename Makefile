# `make demo` and `make test` do all their set-up themselves; they need Python >= 3.11 and make.
#
# Variables: PYTHON  the interpreter to use, otherwise the first that fits of those below
#            VENV    where the virtual environment is made
#            TESTS   what `make test` runs, PYTEST_ARGS more arguments for pytest

VENV ?= .venv
TESTS ?= tests
PYTHON ?=
PYTEST_ARGS ?=
FUZZ ?= 100000
SECONDS ?= 60

CANDIDATES = $(if $(PYTHON),$(PYTHON),python3.11 python3 python3.12 python3.13)
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet
# Each stamp says "this step is done"; it is made again when a file that it depends on changes.
VENV_STAMP = $(VENV)/.stamp-venv
RUN_STAMP = $(VENV)/.stamp-run
DEV_STAMP = $(VENV)/.stamp-dev

.PHONY: help demo test test-long fuzz fuzz-readers lint format bench clean

help:
	@echo "make demo       detect this host, resolve and fetch from examples/mirror"
	@echo "make test       all tests except the long counts"
	@echo "make test-long  the tests with the full counts of fuzzing and kills"
	@echo "make fuzz       the parser on FUZZ=100000 random texts"
	@echo "make fuzz-readers  what reads bytes of mirrors, for SECONDS=60"
	@echo "make lint       ruff, formatting, mypy --strict"
	@echo "make bench      the benchmarks"
	@echo "make clean      remove $(VENV) and demo-out"

$(VENV_STAMP):
	@set -e; \
	for python in $(CANDIDATES); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "make: $(VENV) with $$($$python --version)"; \
	    $$python -m venv $(VENV) || { \
	      echo "make: $$python cannot make a virtual environment; install its venv module (Debian: python3-venv)" >&2; \
	      exit 1; }; \
	    touch $@; exit 0; \
	  fi; \
	done; \
	echo "make: no Python >= 3.11 found (tried: $(CANDIDATES)); name one: make PYTHON=/path/to/python3.11" >&2; \
	exit 1

$(RUN_STAMP): $(VENV_STAMP) pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e .
	@touch $@

# pip is renewed first: dependency groups need 25.1, and an older Python brings an older pip.
$(DEV_STAMP): $(RUN_STAMP)
	$(PIP) install -c constraints.txt --upgrade pip
	$(PIP) install -c constraints.txt --group dev
	@touch $@

demo: $(RUN_STAMP)
	@CACHEFETCH=$(BIN)/cachefetch sh examples/demo.sh

test: $(DEV_STAMP)
	$(BIN)/python -m pytest -m "not long" $(PYTEST_ARGS) $(TESTS)

test-long: $(DEV_STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS) $(TESTS)

# FUZZ: number of inputs; for example make fuzz FUZZ=5000000
fuzz: $(DEV_STAMP)
	FUZZ=$(FUZZ) $(BIN)/python -m pytest -m long tests/property/test_spec_properties.py

# SECONDS: how long; for example make fuzz-readers SECONDS=3600
fuzz-readers: $(DEV_STAMP)
	FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -m long tests/property/test_reader_fuzz.py

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV_STAMP)
	@set -e; for script in benchmarks/bench_*.py; do \
	  echo "== $$script"; $(BIN)/python $$script; \
	done

clean:
	rm -rf $(VENV) demo-out
