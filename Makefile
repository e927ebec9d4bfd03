# `make demo` shows the tool at work, `make test` runs every check. Both need only Python 3.10 or
# newer and a package registry: what they use is installed into .venv.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
PYTEST_WORKERS ?= auto
FUZZ_MINUTES ?= 10

# Texts are UTF-8 whatever the locale.
export PYTHONUTF8 := 1

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PURE_MIDDLE := */divergence/*,*/selection/*,*/ranking/order.py,*/ranking/correlation.py,*/ranking/agreement.py,*/ranking/doubts.py,*/ranking/stability.py,*/precision.py,*/rounding.py,*/records/*

.DELETE_ON_ERROR:
.PHONY: check clean demo docs format fuzz help install test test-gpu

help: ## Shows this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install: $(INSTALLED) ## Installs the package with its tools into .venv

# TensorRT-RTX builds engines without a GPU. Where the registry has none for this machine, the
# demo and the tests go on without it, and say so.
$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --editable '.[tensorrt-rtx]' \
		|| echo "TensorRT-RTX cannot be installed here: no engines will be built."
	touch $@

demo: $(INSTALLED) ## Ranks a small transformer with planted hazards and builds an engine
	$(BIN)/python examples/make_demo_model.py $(DEMO)
	$(BIN)/polygraphy layerprec rank $(DEMO)/demo.onnx --load-inputs $(DEMO)/demo_inputs.npz \
		--save-ranking $(DEMO)/ranking.json --save-script $(DEMO)/constraints.py
	@if $(BIN)/python -c 'import tensorrt_rtx' 2>/dev/null; then set -x; \
		POLYGRAPHY_USE_TENSORRT_RTX=1 $(BIN)/polygraphy convert $(DEMO)/demo.onnx \
			-o $(DEMO)/demo.engine \
			--trt-npps $(DEMO)/constraints.py --trt-cpps $(DEMO)/constraints.py; \
	else echo "TensorRT-RTX is not installed: no engine was built."; fi

docs: $(INSTALLED) ## Builds the documentation into site/; open site/index.html
	$(BIN)/python -m sphinx -W --keep-going -n -q -d build/doctrees docs site

test: check $(INSTALLED) ## Runs the checks and the tests, with coverage
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --cov --cov-report=term --cov-fail-under=90
	$(BIN)/coverage report --include='$(PURE_MIDDLE)' --fail-under=100

test-gpu: $(INSTALLED) ## Runs the tests that need a GPU, and says which it skipped
	$(BIN)/python -m pytest tests/gpu tests/backend -m gpu -rs -n 0

fuzz: $(INSTALLED) ## Looks for files that a reader fails on, for ten minutes
	PYTHONPATH=. $(BIN)/python tests/fuzz/fuzz.py --minutes $(FUZZ_MINUTES)

check: $(INSTALLED) ## Checks format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED) ## Formats the sources
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Removes what was built, installed or measured
	rm -rf $(VENV) $(DEMO) build dist site *.egg-info .coverage .coverage.* .hypothesis \
		.mypy_cache .pytest_cache .ruff_cache
