# `make demo` and `make test` do all of their own set-up. `make` alone lists what there is.

# setup.sh is bash; the recipes are too, on every system.
SHELL := bash
# Windows keeps an environment's programs in Scripts. Looked up when used, because set-up may have just made it.
BIN = $(if $(wildcard .venv/Scripts),.venv/Scripts,.venv/bin)
PYTEST = $(BIN)/python -m pytest
# Idle processes take over tests from busy ones. Each holds torch and napari, hence no more than four.
PARALLEL = -n logical --maxprocesses=4 --dist=worksteal
# pytest brings its own virtual screen; a script needs one where there is none.
SCREEN = $(if $(DISPLAY)$(WAYLAND_DISPLAY),,$(if $(shell command -v xvfb-run),xvfb-run -a -s "-screen 0 1366x768x24"))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow bench lint typecheck fix clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-12s%s\n", $$1, $$2 }'

setup:  ## prepare .venv (does nothing when it is up to date)
	@MAKE_GOAL="$(firstword $(MAKECMDGOALS))" bash scripts/setup.sh

demo: setup  ## segment real sample images with the bundled models
	@$(BIN)/tileseg demo

test: setup  ## run the default tests
	@$(PYTEST) $(PARALLEL)

test-slow: setup  ## run the long tests (repeated kills, over-fits, builds of the wheel)
	@$(PYTEST) -m "slow and not gpu and not network"

# Some benchmarks are scripts that print ratios against other programs, the others belong to pytest-benchmark.
bench: setup  ## measure speed and memory
	@failed=0; for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; $(SCREEN) $(BIN)/python $$script || failed=1; done; \
	$(PYTEST) benchmarks -o python_files="bench_*.py" -p no:randomly --benchmark-only || failed=1; exit $$failed

lint: setup typecheck  ## check style, types, spelling and pyproject.toml
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/typos
	@$(BIN)/validate-pyproject pyproject.toml

typecheck: setup
	@$(BIN)/python -m mypy

fix: setup  ## format, and repair what can be repaired
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove caches and builds (the environment is .venv; remove it by hand)
	rm -rf build dist tileseg-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage
	find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
