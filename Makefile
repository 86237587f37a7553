# One command on a fresh machine each:
#   make run     environment, data, the README's grid on Fashion-MNIST, report
#   make test    environment, system packages of the tests, data, all tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STUDY ?= fmnist
PYTEST_ARGS ?=
# Test files run side by side; their own processes compute with one thread, as workers do.
# tests/conftest.py puts the slow ones first: by the number of their tests they would come last.
# One process more than there are cores: many tests wait for servers, browsers and processes of their own.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1))) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Each of a hundred processes would compile what it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test unit lint check bench gpu format system-packages clean

help:
	@echo "make run    install, fetch Fashion-MNIST, run the example grid, report"
	@echo "make test   install, then all tests"
	@echo "make unit   install, then the fast tests alone"
	@echo "make lint   ruff, mypy, import contracts"
	@echo "make check  lint, then test"
	@echo "make bench  install the peers, measure what the README claims (hours)"
	@echo "make gpu    install, then the tests that need a GPU, and measure it (eight minutes)"

# The environment is made anew in place whenever what it is made of changes.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("gridsearch needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	@touch $@

run: $(VENV)/.runtime
	$(BIN)/gridsearch data fetch fmnist
	$(BIN)/gridsearch run --grid lr=.01,.001 batch=10,20,50 --study $(STUDY)
	@echo
	@echo "The command is $(BIN)/gridsearch; this puts it on the PATH:   . $(BIN)/activate"
	@echo "To look further:   gridsearch dashboard   (Optuna's), gridsearch tensorboard   (curves of every trial)"

# Chromium checks the report's page, a C compiler makes the kernels, zsh and fish complete commands, PostgreSQL,
# PgBouncer and Slurm are started by tests; without one (and without the right to install it) the tests that need it
# skip and say so.
system-packages:
	@wanted=; \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || wanted="$$wanted chromium"; \
	command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || wanted="$$wanted gcc libc6-dev"; \
	for shell in zsh fish; do command -v $$shell >/dev/null || wanted="$$wanted $$shell"; done; \
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || wanted="$$wanted postgresql"; \
	command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || wanted="$$wanted pgbouncer"; \
	[ -x /usr/sbin/slurmctld ] && [ -x /usr/sbin/slurmd ] && [ -x /usr/sbin/munged ] || wanted="$$wanted slurm-wlm munge"; \
	if [ -z "$$wanted" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$wanted >/dev/null; \
	else echo "not installed:$$wanted; the tests that need it will skip"; fi

test: $(VENV)/.dev system-packages
	$(BIN)/gridsearch data fetch fmnist
	$(PYTEST) $(PYTEST_ARGS)

unit: $(VENV)/.dev
	$(PYTEST) -m "not end_to_end and not browser and not fashion and not gpu and not thorough and not postgresql and not ray and not slurm" $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench
	$(BIN)/gridsearch data fetch fmnist
	$(BIN)/python -m tests.benchmarks

gpu: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group test
	$(BIN)/python -m pytest -m gpu -q
	$(BIN)/python -m tests.benchmarks.gpu --within 360

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
