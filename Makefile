# `make cv` runs the whole pipeline on the embedded samples, `make test` checks it, `make docs` makes
# the documentation's pages in build/docs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: cv test lint docs check-docs clean

cv: $(VENV)/.installed
	$(BIN)/python experiments/cv.py

test: lint
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -c docs -b html . build/docs

# the same warnings as `make docs` in less time; the tests run the tutorial
check-docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -qW --keep-going -c docs -b dummy -D nb_execution_mode=off . build/dummy

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --editable '.[docs]'
	@touch $@

# The stamp is newer than the metadata once everything is installed: a second call does nothing.
$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else \
	    f"cnnsvm needs Python >= 3.11, $(PYTHON) is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable '.[test]'
	@touch $@

clean:
	rm -rf runs build *.egg-info .mypy_cache .pytest_cache .ruff_cache
