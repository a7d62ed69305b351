# Two commands set everything up: `make demo` and `make test`.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
RUN ?= runs/demo-vqa
FLOORS := .venv-floors
ALL_TESTS := -m pytest -q -m 'not slow and not gpu'

.PHONY: demo test test-floors lint audit install clean

install: $(VENV)/.installed

# The ordinary registry build of torch: torchvision, which open_clip needs, exists for that one.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/dept-vl train --task vqa --output-dir $(RUN) --overwrite
	$(BIN)/dept-vl eval --task vqa --checkpoint $(RUN)

test: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q

# All tests with the lowest release of each dependency that pyproject.toml allows; some are older than Python 3.13.
test-floors:
	$(PYTHON) -m venv --clear $(FLOORS)
	$(FLOORS)/bin/pip install --quiet --upgrade pip packaging
	$(FLOORS)/bin/python .ci/floor_pins.py > $(FLOORS)/floors.txt
	$(FLOORS)/bin/pip install --quiet --constraint $(FLOORS)/floors.txt --editable '.[dev]'
	HF_HUB_OFFLINE=1 $(FLOORS)/bin/python $(ALL_TESTS)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The floors against the table in .ci/check_floors.py, then what is installed against the public vulnerability service.
audit: install
	$(BIN)/python .ci/check_floors.py
	$(BIN)/python .ci/audit.py

clean:
	rm -rf $(VENV) $(FLOORS) build dist *.egg-info
