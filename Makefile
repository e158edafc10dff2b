# Run `make` for the list. Each target installs what it needs the first time, into .venv, and not again.
PYTHON ?= python3
BIN := .venv/bin
# CI installs the versions that were tested last; a reader gets today's, which fit his Python and his machine.
PIP_INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check $(if $(CI),-c constraints.txt)

.PHONY: help dogs test lab check series site bench audit
help:
	@echo "make dogs    run the series on toy dogs, or on DOGS=path/to/folder, oxford-pets or stanford-dogs"
	@echo "make lab     open the series in JupyterLab"
	@echo "make test    lint, unit tests, every notebook; takes minutes, touches none of your files"
	@echo "make check   slow checks: two processes, kills at any moment, the clinic, the notebooks in a browser"
	@echo "make series  run the series in full and refresh the outputs in notebooks/"
	@echo "make site    the series as web pages, in site/; needs Node.js"
	@echo "make audit   look for known weaknesses in what is installed, and list its licences; asks the internet"
	@echo "make bench   measure what the tables in docs/benchmarks.md say; takes long"

.venv/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	@echo "Installing requirements.txt into .venv: once, some minutes, 6 to 7 GB"
	$(PIP_INSTALL) -r requirements.txt
	$(PIP_INSTALL) --no-deps -e .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP_INSTALL) -e ".[dev]"
	@touch $@

.venv/.installed-site: .venv/.installed
	$(PIP_INSTALL) -e ".[site]"
	@touch $@

dogs: .venv/.installed
	$(BIN)/python notebooks/run_series.py

series: .venv/.installed
	$(BIN)/python notebooks/run_series.py --refresh

lab: .venv/.installed
	$(BIN)/jupyter lab --ip=127.0.0.1 --notebook-dir=. notebooks/01_data_split.ipynb

test: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n auto --maxprocesses=4 tests
	$(BIN)/python -m pytest notebooks

check: .venv/.installed-dev .venv/.installed-site
	$(BIN)/python -m pytest -m slow -rs tests

site: .venv/.installed-site
	$(BIN)/python docs/site/build.py

bench: .venv/.installed-dev
	$(BIN)/python benchmarks/bench.py
	$(BIN)/python benchmarks/explorer.py

audit: .venv/.installed-dev
	$(BIN)/python -m pip freeze --exclude-editable > .venv/installed.txt
	$(BIN)/pip-licenses --order=license --format=plain-vertical --no-license-path
	$(BIN)/pip-audit --strict --disable-pip --no-deps -r .venv/installed.txt
