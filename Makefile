.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test test-fast lint docs bench clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $$(command -v $(PYTHON) || command -v python3) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[train,evaluate,report,quantise,docs,dev]'
	touch $(READY)

demo: $(READY) ## Install, draw synthetic images, train, predict, score (about 5 minutes)
	$(BIN)/naevus demo --out demo

test-fast: $(READY) ## Run the unit tests that take seconds (about a minute)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" tests/unit

test: $(READY) ## Run all tests, a file at a time on each processor
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(READY) ## Check style, types and which module imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY) ## Build the pages into build/site, without network; a broken link is an error
	rm -rf build/site
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet -j auto -d build/doctrees docs build/site

bench: $(READY) ## Measure the speed claims (quiet machine; real images where they are)
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

clean: ## Remove the environment and what the tools left
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
