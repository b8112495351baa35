.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MAKE_VENV = test -x $(BIN)/python || $$(command -v $(PYTHON) || command -v python3) -m venv $(VENV)
INSTALL = $(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: help demo test test-fast test-s3 lint docs bench torture fuzz lock audit dist clean

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/'

$(READY): pyproject.toml constraints.txt
	$(MAKE_VENV)
	$(INSTALL) -e '.[train,evaluate,report,quantise,docs,dev]'
	touch $(READY)

demo: ## Show the built-in model on synthetic images, then install the training extra and train
	@echo "1. Install naevus and show the built-in model on synthetic images (about a minute)."
	@echo "2. Install the training extra (PyTorch; some minutes, mostly download)."
	@echo "3. Train, score and predict with networks of your own (about 5 minutes on 2 processors)."
	@echo "Interrupt it at any time; the same command resumes."
	$(MAKE_VENV)
	$(INSTALL) -e .
	@$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/naevus demo --out demo
	$(INSTALL) -e '.[train]'
	$(BIN)/naevus demo --out demo

test-fast: $(READY) ## Run the unit tests that take seconds (about a minute)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" tests/unit

test: $(READY) ## Run all tests, a file at a time on each processor
	$(BIN)/python -m pytest -n auto --dist loadfile

MOTO = build/moto
$(MOTO)/bin/moto_server:
	$(BIN)/python -m venv $(MOTO)
	$(MOTO)/bin/pip install --disable-pip-version-check --quiet 'moto[s3]>=5.1' flask flask-cors

test-s3: $(READY) $(MOTO)/bin/moto_server ## Test Ray with an object store; its server has an environment of its own
	$(INSTALL) -e '.[ray]'
	MOTO_SERVER=$(MOTO)/bin/moto_server $(BIN)/python -m pytest tests/integration/test_ray.py

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

FUZZ_SECONDS = 600
fuzz: $(READY) ## Fuzz everything that reads a file, 10 minutes each; findings go into tests/data/fuzz
	$(INSTALL) -e '.[fuzz]'
	for target in images tables bundles layouts; do \
		$(BIN)/python -m tests.fuzz.run $$target --seconds $(FUZZ_SECONDS) || exit 1; done

AUDIT = $(VENV)/.audit
$(AUDIT): $(READY)
	$(INSTALL) -e '.[audit]'
	touch $(AUDIT)

EXTRAS = train tracking mlflow evaluate report quantise excel heif onnxruntime ray docs dev audit fuzz
LOCK = $(BIN)/uv pip compile pyproject.toml -c constraints.txt --universal --python-version 3.11.5 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header --quiet

lock: $(AUDIT) ## Write the hashes of the pinned releases into requirements/ (asks the package index)
	$(LOCK) -o requirements/base.txt
	$(LOCK) $(EXTRAS:%=--extra %) -o requirements/all.txt

audit: $(AUDIT) ## Check licences, and known vulnerabilities if the advisory service answers
	$(BIN)/python tools/audit.py

dist: $(AUDIT) ## Build wheel and source archive, with a list of their dependencies (CycloneDX), into dist/
	$(BIN)/python -m build
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON -o dist/naevus.cdx.json requirements/base.txt

torture: $(READY) ## Break every command at random points and print what was lost (20 minutes)
	$(BIN)/python -m tests.helpers.torture_all

clean: ## Remove the environment and what the tools left
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
