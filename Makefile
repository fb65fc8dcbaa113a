# The entry points of the repository. Everything happens in .venv; system packages are installed only where we are root.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: help demo test lint type bench docs soak clean system-packages package package-check
help: ## Show what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

$(VENV)/.runtime: pyproject.toml hatch_build.py
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --group test
	@touch $@

$(VENV)/debian/usr/bin/kubectl: $(VENV)/.test tools/debian_kubectl.sh
	@sh tools/debian_kubectl.sh $(VENV)/debian

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group lint
	@touch $@

system-packages: ## Install the Debian packages the node and its tests use, where that is possible
	@sh tools/system_packages.sh

demo: system-packages $(VENV)/.runtime ## Set up everything and take the tour (ARGS=--keep leaves it running)
	$(BIN)/fleetplane demo $(ARGS)

test: system-packages $(VENV)/.test $(VENV)/debian/usr/bin/kubectl ## Set up everything and pass the tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "not soak"

soak: system-packages $(VENV)/.test ## The long randomised runs
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m soak

lint: $(VENV)/.lint ## Style, types and import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test ## Measure, side by side with peers where they are installed
	$(BIN)/python -m bench

docs: $(VENV)/.runtime ## Build the documentation site into site/
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/mkdocs build --strict

package: $(VENV)/.runtime ## Build the sdist and the wheel into dist/
	@rm -f dist/fleetplane-*.whl dist/fleetplane-*.tar.gz
	$(BIN)/python -m pip install --quiet --group package
	$(BIN)/python -m build --outdir dist .

package-check: ## Install the built wheel where nothing else is, and run a plane from it
	$(BIN)/python tools/check_package.py dist

clean: ## Remove what was built
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
