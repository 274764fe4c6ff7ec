# Each target makes what it needs: `make demo` and `make test` work in a fresh clone with python3 >= 3.11 alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
JOBS ?= 2

# One thread per process: the tests run in JOBS processes, and small tensors gain nothing from more.
export OMP_NUM_THREADS ?= 1

.PHONY: demo demo-neural test benchmark docs lint format clean

# Fit a latent SDE to the embedded data and compare it with the baselines; prints where the report is.
demo: $(VENV)/core
	OMP_NUM_THREADS=$(JOBS) $(BIN)/python recipes/forecast.py

# Fit LangevinFlow to a simulated population and compare its rates with those of the baselines.
demo-neural: $(VENV)/neural
	OMP_NUM_THREADS=$(JOBS) $(BIN)/python recipes/neural_population.py

# Style, types and every test but those marked slow.
test: lint
	$(BIN)/python -m pytest -n $(JOBS)

# One set of tables, make benchmark NAME=pbcseq; all of them, which takes hours, without a name.
BENCHMARKS = $(filter-out render,$(notdir $(basename $(shell grep -l __main__ benchmarks/*.py))))
benchmark: $(VENV)/core
	set -e; for name in $(or $(NAME),$(BENCHMARKS)); do $(BIN)/python -m benchmarks.$$name; done

# Put the tables of benchmarks/results into the documents, and build the site; a warning is an error.
docs: $(VENV)/docs
	$(BIN)/python -m benchmarks.render
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/site
	@echo "the site is at build/site/index.html"

# Style, types, and documents whose tables are those of benchmarks/results.
# mypy names a module after the folder that it lies in, so it gets the package in the shape in which it installs.
TYPED := build/types
lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@rm -rf $(TYPED) && mkdir -p $(TYPED)/neurodyn && ln -s "$(CURDIR)"/neurodyn/* "$(CURDIR)/datasets" "$(CURDIR)/recipes" $(TYPED)/neurodyn/
	cd $(TYPED) && "$(CURDIR)/$(BIN)/mypy" --config-file "$(CURDIR)/pyproject.toml" --cache-dir "$(CURDIR)/.mypy_cache" -p neurodyn
	$(BIN)/python -m benchmarks.render --check

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The files below are stamps: made again, and the packages with them, when the versions asked for change.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"neurodyn needs Python 3.11 or newer, and $(PYTHON) is {v}; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/neural: $(VENV)/core
	$(PIP) install --quiet --constraint constraints.txt --editable '.[neural]'
	touch $@

$(VENV)/docs: $(VENV)/core
	$(PIP) install --quiet --constraint constraints.txt --editable '.[docs,neural,estimators]'
	touch $@

$(VENV)/dev: $(VENV)/core
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test,lint,neural,structure,sweep,tensorboard,estimators,xarray]'
	touch $@
