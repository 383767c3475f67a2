# Everything that a fresh clone needs: Python >= 3.11 and make. `make` lists what there is.
#   PYTHON=python3.12 make demo     chooses the Python that the virtual environment is made with
#   CONSTRAINTS=tests/lowest.txt make test      installs with the lowest versions that are promised (make clean before)
#   make test ARGS="-m slow"        hands ARGS to pytest (and to `contralex train` in make demo)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.contralex-installed
PLUGINS := $(sort $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml)))
ARGS ?=
CONSTRAINTS ?=

# Nothing of the caller's environment may reach into this one.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test bench-env strangers dist lint ruff format-check mypy facts-check shape-check format facts clean moved

help:
	@echo "make demo    set up .venv, then train MoCo v2 on real images (digits) in less than five minutes"
	@echo "make test    set up .venv, then run the tests (ARGS=\"-m slow\" for the slow ones)"
	@echo "make strangers  what contralex new writes, as wheels in clean environments: checked and trained"
	@echo "make lint    ruff, mypy --strict, facts that stand in several places, the staircase, the doors and the help"
	@echo "make format  let ruff format and fix the code"
	@echo "make facts   rewrite what tools/facts.py derives (install hints, bounds, tables, licences)"
	@echo "make bench-env  set up .bench-env, with the libraries that the benchmarks compare with"
	@echo "make dist    build every wheel and sdist into dist/, and check them as PyPI does"
	@echo "make clean   remove .venv, .bench-env, caches and build folders; runs/ stays"

# 60 of the preset's 140 epochs, and the precision that this CPU computes fastest, so that two cores need less than five
# minutes.
demo: $(STAMP)
	$(BIN)/python -m contralex train moco-v2 --preset digits --epochs 60 --fit $(ARGS)

# A worker for each core, one thread for each, and whole files, because tests of one file share what was computed.
test: export OMP_NUM_THREADS ?= 1
test: $(STAMP)
	$(BIN)/python -m pytest -n logical --dist loadfile --durations=15 $(ARGS)

# A package of each flavour beside a wheel of the core, as its author's users would have them.
strangers: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m slow tests/cli/test_new.py

# The peers of the benchmarks, apart from what work on contralex needs: .bench-env/bin/python -m benchmarks.bounds
bench-env:
	"$(or $(PYTHON),python3)" -m venv .bench-env
	.bench-env/bin/python -m pip install -r benchmarks/requirements.txt -e './core[digits]' $(PLUGINS:%=-e ./%)

lint: ruff format-check mypy facts-check shape-check

ruff: $(STAMP)
	$(BIN)/python -m ruff check .

format-check: $(STAMP)
	$(BIN)/python -m ruff format --check .

mypy: $(STAMP)
	$(BIN)/python -m mypy

facts-check: $(STAMP)
	$(BIN)/python tools/facts.py --check

# Imports go down the staircase; plugins, templates and documentation import from the doors alone; helps are sentences.
shape-check: $(STAMP)
	$(BIN)/python -m pytest -q tests/core/test_staircase.py tests/core/test_doors.py tests/cli/test_help.py

format: $(STAMP)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

facts: $(STAMP)
	$(BIN)/python tools/facts.py

# A wheel and an sdist of each distribution, whose metadata and README PyPI would take.
dist: $(STAMP)
	rm -rf dist
	set -e; for folder in core $(PLUGINS); do $(BIN)/python -m build --outdir dist "$$folder"; done
	$(BIN)/python -m twine check --strict dist/*

# The environment is good while its Python runs and nothing that says what to install is newer than the stamp.
# The stamp holds the folder, because an editable installation of a clone that was moved points to the old place.
$(STAMP): core/pyproject.toml $(PLUGINS:%=%/pyproject.toml) requirements-dev.txt $(CONSTRAINTS) $(if $(shell [ "`cat $(STAMP) 2>&1`" = "`pwd`" ] || echo moved),moved)
	@if ! $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  found=; for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && found="$$python" && break; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "contralex needs Python 3.11 or newer, and $(or $(PYTHON),python3) is `$(or $(PYTHON),python3) --version 2>/dev/null || echo not there`;" \
	      "install one, or name it: PYTHON=/path/to/python3.12 make $(MAKECMDGOALS)" >&2; exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$found"; \
	  "$$found" -m venv --clear $(VENV); \
	fi
	@echo "Installing contralex, its plugins and the tools into $(VENV)$(if $(wildcard $(STAMP)),,; this takes minutes, because PyTorch is large)"
	$(BIN)/python -m pip install $(if $(wildcard $(STAMP)),--quiet) $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e './core[digits]' $(PLUGINS:%=-e ./%) -r requirements-dev.txt
	$(BIN)/python -m contralex schema --out contralex.schema.json
	@pwd > $@

moved:

clean:
	rm -rf $(VENV) .bench-env .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf build dist core/build core/dist plugins/*/build plugins/*/dist
	find core plugins tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
