# Two commands do everything on a fresh machine: `make quickstart` and `make test`. Both make .venv first.
# To use an environment you already have (a GPU build of torch, say): make test VENV=/path/to/venv
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.anyorder-setup
EXTRAS ?= test,dev
export OMP_WAIT_POLICY ?= passive
# Tests start processes of their own; without bytecode each of them compiles the whole package first.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup quickstart test test-slow lint bench docs

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

quickstart: setup
	$(BIN)/anyorder quickstart

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

lint: setup
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/sampling.py

docs: setup
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

wheel:
	rm -rf build dist && $(PYTHON) -m pip wheel -q --no-deps -w dist .

wheel-check: wheel  # in an environment of its own: what a user gets
	rm -rf build/fresh && $(PYTHON) -m venv build/fresh
	build/fresh/bin/pip install -q -c constraints.txt dist/*.whl
	cd build && fresh/bin/anyorder doctor && fresh/bin/anyorder infill starter "def add(a, b):\n    return [[4]]"
