# Each target makes what it needs: `make demo` and `make test` work in a fresh clone with python3 >= 3.11 alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
JOBS ?= 2

# One thread per process: the tests run in JOBS processes, and small tensors gain nothing from more.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test benchmark docs lint format clean

# Fit a latent SDE to the embedded data and compare it with the baselines; prints where the report is.
demo: $(VENV)/core
	OMP_NUM_THREADS=$(JOBS) $(BIN)/python recipes/forecast.py

# Style, types and every test but those marked slow.
test: lint
	$(BIN)/python -m pytest -n $(JOBS)

# One table: make benchmark NAME=pbcseq. All of them without a name.
benchmark: $(VENV)/core
	$(BIN)/python -m benchmarks.$(or $(NAME),all)

# Render the tables of the docs from benchmarks/results.
docs: $(VENV)/core
	@if [ -f benchmarks/render.py ]; then $(BIN)/python -m benchmarks.render; else echo "no benchmarks/render.py: nothing to render"; fi

# mypy names a module after the folder that it lies in, so it gets the package in the shape in which it installs.
TYPED := build/types
lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@rm -rf $(TYPED) && mkdir -p $(TYPED)/neurodyn && ln -s $(CURDIR)/neurodyn/* $(CURDIR)/datasets $(CURDIR)/recipes $(TYPED)/neurodyn/
	cd $(TYPED) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p neurodyn

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

$(VENV)/dev: $(VENV)/core
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@
