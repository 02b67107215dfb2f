# Everything runs in a virtual environment of its own, .venv; nothing is installed globally.
#   make quickstart        set up and train a small model on rendered clips; prints the path of its report
#   make test              the fast tests                    make test-slow   the others
#   make check             ruff and mypy                     make format      apply ruff's fixes
#   make docs              this library's site, build/docs   make clean       remove build files and caches
# Another environment: make VENV=/path/to/venv test. Another interpreter: make PYTHON=python3.12 venv.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check

# The stamps carry a checksum of pyproject.toml, so changed dependencies are installed and unchanged ones never again.
CHECKSUM := $(shell cksum < pyproject.toml | cut -d ' ' -f 1)
READY := $(VENV)/.omnistream-$(CHECKSUM)
READY_DEV := $(VENV)/.omnistream-dev-$(CHECKSUM)

# Tests work on tiny tensors, for which more threads are slower: one process per core instead, at most four, each with whole
# files, whose tests share what they set up. make WORKERS=0 test runs them one after the other.
TEST_ENV := OMP_NUM_THREADS=1
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
# A test that waits for ever ends its process, which names it, and the others go on in another.
PYTEST := $(PY) -m pytest -q -n $(WORKERS) --dist loadfile --durations=10 --timeout-method=thread

.PHONY: help venv quickstart test test-slow check format docs clean distclean
.DEFAULT_GOAL := help

help:
	@sed -n '2,6s/^# *//p' Makefile

venv: $(READY)

$(PY):
	$(PYTHON) -m venv $(VENV)

$(READY): | $(PY)
	@$(PY) tools/requirements_met.py test || \
	  { echo "installing OmniStream and its dependencies into $(VENV) (a few minutes)"; $(PIP) install --quiet -e '.[test]'; }
	@touch $@

$(READY_DEV): | $(PY)
	@$(PY) tools/requirements_met.py dev || \
	  { echo "installing OmniStream and its development tools into $(VENV) (a few minutes)"; $(PIP) install --quiet -e '.[dev]'; }
	@touch $@ $(READY)

quickstart: venv
	$(PY) -m omnistream fit -c quickstart

test: venv
	$(TEST_ENV) $(PYTEST) --timeout=300 -m "not slow"

test-slow: venv
	$(TEST_ENV) $(PYTEST) --timeout=1800 -m slow

check: $(READY_DEV)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(READY_DEV)
	$(PY) -m ruff check --fix --exit-zero .
	$(PY) -m ruff format .

# Warnings are errors, and so are links and names that lead nowhere. Nothing is fetched from the network.
docs: $(READY_DEV)
	$(PY) -m sphinx -q -n -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

clean:
	rm -rf build docs/reference/generated dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find omnistream tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Also the virtual environment; runs/ holds your results and is left alone.
distclean: clean
	rm -rf .venv
