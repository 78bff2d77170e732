# Everything runs in .venv, made here from nothing but Python 3.11+ and the package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# CI installs the versions that were tested: make CONSTRAINTS=constraints.txt …; others take the newest allowed.
CONSTRAINTS ?=
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all coverage check format structure docs docs-links release constraints bench fuzz clean

help:  ## print every target
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

# The demo needs no PyTorch: it gets its own, small stamp.
$(VENV)/.demo: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("AccMPEG needs Python 3.11 or newer; run make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[server,evaluate]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo pyproject.toml
	$(INSTALL) -e '.[server,evaluate,train,huggingface,openvino,mqtt,cluster,remote,dev]'
	$(INSTALL) --no-deps 'trackers>=2.6,<3'  # with its own it would bring an OpenCV that needs libGL
	@touch $@

$(VENV)/.docs: $(VENV)/.demo pyproject.toml
	$(INSTALL) -e '.[server,evaluate,train,docs]'
	@touch $@

setup: $(VENV)/.dev  ## make .venv with everything, for work on the code
demo: $(VENV)/.demo  ## install and run the main job on the embedded scene
	$(BIN)/accmpeg demo --output accmpeg-demo
test: $(VENV)/.dev  ## install and run the tests
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile
test-all: $(VENV)/.dev  ## the slow tests too
	$(BIN)/python -m pytest
coverage: $(VENV)/.dev  ## the share of lines that the fast tests run, by file
	$(BIN)/python -m coverage erase
	-$(BIN)/python -m coverage run -m pytest -m 'not slow' -n 2 --dist loadfile
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --skip-covered --sort cover
check: $(VENV)/.dev  ## types, lint and format
	$(BIN)/ruff check src tools tests benchmarks fuzz docs
	$(BIN)/ruff format --check src tools tests benchmarks fuzz docs
	$(BIN)/mypy
format: $(VENV)/.dev  ## put the code in the house format
	$(BIN)/ruff check --fix src tools tests benchmarks fuzz docs
	$(BIN)/ruff format src tools tests benchmarks fuzz docs
structure:  ## print the rooms: which module imports which, and what has grown too long
	$(PYTHON) tools/structure.py
docs: $(VENV)/.docs  ## build the site in docs/_build/html; warnings and broken links within it fail
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
docs-links: $(VENV)/.docs  ## check the links of the docs that lead elsewhere (needs the Internet)
	$(BIN)/python -m sphinx --quiet -b linkcheck docs docs/_build/links
release: $(VENV)/.dev  ## build wheel and sdist in dist/, check them, and run the demo from the wheel
	PYTHON=$(BIN)/python tools/release.sh
constraints: $(VENV)/.dev $(VENV)/.docs  ## write the versions in .venv to constraints.txt, for CI
	echo '# The versions that CI installs and that were tested together; `make constraints` writes them anew from .venv.' > constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[^ ]*$$//' >> constraints.txt
bench: $(VENV)/.dev  ## what every stage costs on this machine
	$(BIN)/python benchmarks/camera_cost.py
# FUZZ_S: seconds for each target.
FUZZ_S ?= 600
fuzz: $(VENV)/.dev  ## look for crashes in what strangers can send
	$(INSTALL) -e '.[fuzz]'
	for target in wire bitstream hello units feedback http cards; do $(BIN)/python fuzz/fuzz.py $$target -max_total_time=$(FUZZ_S) || exit 1; done
clean:  ## remove .venv and what was made here
	rm -rf $(VENV) accmpeg-demo dist docs/_build docs/_generated
