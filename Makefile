# make train   set up, then train the tiny model of configs/tiny.yaml from nothing: ARGS="learner.steps=10 …"
# make test    set up, then static checks and all tests:                            ARGS="-k wire -x"
# make check   set up, then static checks only
# DEVICE=cuda installs requirements/cuda.txt instead of requirements/cpu.txt. PYTHON names the interpreter for .venv.

DEVICE ?= cpu
CONFIG ?= configs/tiny.yaml
PACKAGES = actors learner executor common configs azr
BIN = .venv/bin

.PHONY: train test check setup setup-dev

train: setup
	$(BIN)/azr train $(CONFIG) $(ARGS)

test: check
	$(BIN)/python -m pytest $(ARGS)

check: setup-dev
	$(BIN)/ruff check $(PACKAGES) tests
	$(BIN)/ruff format --check $(PACKAGES) tests
	$(BIN)/python -m mypy $(PACKAGES) tests

setup:
	@scripts/setup $(DEVICE)

setup-dev:
	@scripts/setup $(DEVICE) dev
