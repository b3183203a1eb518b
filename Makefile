# Everything a fresh clone needs: `make demo` and `make test`. Both make the virtual environment first.
PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check setup lock clean bench

demo: setup
	$(BIN)/bus demo

test: setup check
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/bus bench

setup: $(VENV)/ready
	@$(BIN)/bus stack fetch

$(VENV)/ready: pyproject.toml requirements.lock
	@echo "setting up $(VENV) with $$($(PYTHON) --version) (about 250 MB, once)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
	  || { echo "Python 3.11 to 3.14 is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Renew the lock file; needs uv. One file holds for Python 3.11 to 3.14.
lock:
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate \
	  --extra stack --extra dev --output-file requirements.lock pyproject.toml requirements.build

clean:
	rm -rf $(VENV) .sealbus
