# For a fresh machine: `make install`, `make run` and `make test`. Each makes .venv on first use and re-uses it afterwards.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install run test test-devices soak lint clean

install: $(VENV)/.run

run: $(VENV)/.run
	$(BIN)/edgekd run recipes/mobilenet.yaml

test: $(VENV)/.test
	$(BIN)/python -m pytest

# On emulated boards behind a real SSH server, made within a minute; needs root and Linux 6.7, and is skipped without.
test-devices: $(VENV)/.test
	$(BIN)/python -m pytest tests/devices

# An hour on two cores; needs the Debian package dataset-fashion-mnist. Rows that are there are kept.
soak: $(VENV)/.test
	$(BIN)/python tests/oracle/run.py
	$(BIN)/python tests/protocol/run.py
	$(BIN)/python tests/recipes/run.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

define VENV_MADE
@$(PYTHON) -c 'import sys; sys.exit("edgekd needs Python 3.11 or newer; this is %d.%d. Try: make PYTHON=python3.11 $(MAKECMDGOALS)" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
endef

$(VENV)/.run: pyproject.toml
	$(VENV_MADE)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.test: pyproject.toml
	$(VENV_MADE)
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $(VENV)/.run $@

clean:
	rm -rf $(VENV)
