# Everything runs from .venv; nothing is installed outside this folder.
# The first that runs and is new enough; a version manager's shim may exist without its Python.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && echo $$python && break; done)
BIN := .venv/bin
# Foreign clients of the emulated Notecard, beside the one in pyproject.toml; the tests find them here.
OLDER_NOTE_PYTHON := 2.4.1 2.3.3

.DEFAULT_GOAL := help
.PHONY: help setup demo test deploy hil check lint type fmt bench soak fuzz clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## make .venv with judder, its tools and the device libraries

.venv/.ready: pyproject.toml device/requirements.txt tests/vm/install tests/vm/package.json Makefile
	@test -n "$(PYTHON)" || { echo "judder needs Python 3.11 or later; none found. Install one, or: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "this Python cannot make virtual environments. On Debian: apt install python3-venv"; rm -rf .venv; exit 1; }
	@echo "setting up .venv (a minute or two, once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[model]' --group dev
	@rm -rf device/lib
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-compile --target device/lib --requirement device/requirements.txt
	@for version in $(OLDER_NOTE_PYTHON); do $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--upgrade --target .venv/note-python/$$version note-python==$$version || exit 1; done
	@tests/vm/install .venv
	@$(BIN)/circuitpython_setboard swan_r5 > /dev/null
	@touch $@

demo: setup ## run the whole loop on the emulated bench
	@$(BIN)/judder demo

test: setup ## run all tests
	@$(BIN)/pytest

deploy: setup ## install the firmware on the board that is plugged in
	@$(BIN)/judder deploy

hil: setup ## the board's tests on a real Swan and Notecard, on USB
	@$(BIN)/pytest tests/hil --board usb

check: lint type ## lint and types

lint: setup ## ruff: rules and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

type: setup ## mypy on the host, pyright with the Swan's stubs on the device
	@$(BIN)/mypy
	@$(BIN)/pyright --project device

fmt: setup ## format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: setup ## measure speed and size (ratios within one run)
	@PYTHONPATH=device $(BIN)/python -m tests.bench

soak: setup ## fifty emulated devices, 10,000 windows, random faults, flat memory (half an hour)
	@$(BIN)/python -m tests.soak

fuzz: setup ## search for inputs that break something, until coverage grows no more (docs/fuzzing.md)
	@$(BIN)/pip install --quiet --disable-pip-version-check --only-binary atheris --group fuzz || { \
		echo "make fuzz needs atheris, which has no wheel for this Python; make test replays the corpus without it"; exit 1; }
	@PYTHONPATH=device $(BIN)/python -m tests.fuzz $(TARGET)

clean: ## remove everything that was made here
	rm -rf .venv device/lib build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
