# Two commands set everything up: `make demo` and `make test`. On Linux the registry's torch comes with CUDA; for a
# smaller CPU build give TORCH_INDEX, the index that https://pytorch.org/get-started/locally/ shows for Pip and CPU.
VENV ?= .venv
PYTHON ?= python3
TORCH_INDEX ?=
BIN := $(VENV)/bin
RUN ?= runs/demo-vqa
NEWEST := .venv-newest
FLOORS := .venv-floors
# Two processes, each with whole test files: fixtures that load models are made once a process.
TESTS := -m pytest -q -n 2 --dist loadfile
ALL_TESTS := $(TESTS) -m 'not slow and not gpu'

.PHONY: demo test test-all test-newest test-floors lint audit docs install constraints clean

install: $(VENV)/.installed

# What the demo needs. torch and torchvision, which open_clip needs, are of one build.
$(VENV)/.package: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet --constraint constraints.txt --index-url $(TORCH_INDEX) torch torchvision)
	$(BIN)/pip install --quiet --quiet --constraint constraints.txt --editable .
	touch $@

# The developers' tools beside it.
$(VENV)/.installed: $(VENV)/.package
	$(BIN)/pip install --quiet --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.package
	$(BIN)/dept-vl train --task vqa --output-dir $(RUN) --overwrite
	$(BIN)/dept-vl eval --task vqa --checkpoint $(RUN)

test: install
	HF_HUB_OFFLINE=1 $(BIN)/python $(TESTS)

# Launches of several processes and benchmark runs too.
test-all: install
	HF_HUB_OFFLINE=1 $(BIN)/python $(ALL_TESTS)

# The same tests with the newest release of everything, in an environment made anew: an old one would not have them.
test-newest:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/pip install --quiet --upgrade pip
	$(NEWEST)/bin/pip install --quiet --editable '.[dev]'
	HF_HUB_OFFLINE=1 $(NEWEST)/bin/python $(ALL_TESTS)

# The same tests with the lowest release of each dependency that pyproject.toml allows; some are older than Python 3.13.
test-floors:
	$(PYTHON) -m venv --clear $(FLOORS)
	$(FLOORS)/bin/pip install --quiet --upgrade pip packaging
	$(FLOORS)/bin/python .ci/floor_pins.py > $(FLOORS)/floors.txt
	$(FLOORS)/bin/pip install --quiet --constraint $(FLOORS)/floors.txt --editable '.[dev]'
	HF_HUB_OFFLINE=1 $(FLOORS)/bin/python $(ALL_TESTS)

# The newest releases, once the tests pass with them, become what `make install` takes.
constraints: test-newest
	$(NEWEST)/bin/python .ci/write_constraints.py > $(NEWEST)/constraints.txt
	mv $(NEWEST)/constraints.txt constraints.txt

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The floors against the table in .ci/check_floors.py, then what is installed against the public vulnerability service.
audit: install
	$(BIN)/python .ci/check_floors.py
	$(BIN)/python .ci/audit.py

# The documentation site, into site/; site/index.html opens from the disk.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

clean:
	rm -rf $(VENV) $(NEWEST) $(FLOORS) build dist site *.egg-info
