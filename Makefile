# `make help` lists the targets. All run in .venv, which is made when it is missing or older than what defines it.

PY ?= python3
BIN := .venv/bin
ENVIRONMENT := .venv/.installed
STRIDED := .venv/.strided
BENCHMARKS := $(filter-out %/engines.py %/limits.py %/peers.py %/quality.py %/subjects.py %/cells.py %/languages.py %/transfer.py, $(wildcard benchmarks/*.py))  # parts of others; hours of training

.PHONY: help demo test lint bench clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*##/\1\t/p' Makefile

demo: $(ENVIRONMENT)  ## train, generate and compile a small model on text that ships with Python (about 5 minutes)
	$(BIN)/atinuke demo

test: $(ENVIRONMENT) $(STRIDED)  ## every test, and the laws on the example plugin
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations 15 --atinuke-plugin strided

lint: $(ENVIRONMENT)  ## style, formatting, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(ENVIRONMENT)  ## every benchmark of speed; let nothing else run meanwhile
	@for file in $(BENCHMARKS); do echo "$$file"; $(BIN)/python "$$file" || exit 1; done

clean:  ## remove the environment and every cache
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

$(ENVIRONMENT): pyproject.toml constraints.txt
	@$(PY) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "$(PY) is not Python 3.11, 3.12 or 3.13; choose one that is: make PY=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PY) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# A third party's plugin, installed as its user would.
$(STRIDED): $(ENVIRONMENT) $(wildcard examples/atinuke-strided/*)
	$(BIN)/python -m pip install --quiet --no-deps --no-index --no-build-isolation examples/atinuke-strided
	@touch $@
