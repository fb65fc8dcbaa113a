# The entry points of the repository. Everything happens in .venv; system packages are installed only where we are root.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
# The image that is built and deployed, and for which machine. Clusters are those of KUBECONFIG.
IMG ?= localhost/fleetplane:latest
ARCH ?= $(shell dpkg --print-architecture 2>/dev/null || echo amd64)
FLEETPLANE := $(BIN)/fleetplane

.PHONY: help demo test lint type bench docs soak clean system-packages package package-check \
	manifests build-installer install uninstall deploy undeploy run docker-build deb test-e2e
help: ## Show what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

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

manifests: $(VENV)/.runtime ## Write config/ and the chart's files anew from what the operators declare
	$(FLEETPLANE) manifests --kustomize config
	$(BIN)/python tools/write_chart.py

build-installer: $(VENV)/.runtime ## Write dist/install.yaml: all that the operators need on a Kubernetes, with IMG
	@mkdir -p dist
	$(FLEETPLANE) manifests --image $(IMG) > dist/install.yaml

install: $(VENV)/.runtime ## Install the operators' kinds into the cluster of KUBECONFIG
	$(FLEETPLANE) apply -f config/crd/bases

uninstall: $(VENV)/.runtime ## Remove the kinds from that cluster, and with them everything of those kinds
	$(FLEETPLANE) delete -f config/crd/bases --ignore-not-found

deploy: build-installer ## Run the operators in that cluster, from the image IMG
	$(FLEETPLANE) apply -f dist/install.yaml

undeploy: uninstall build-installer ## Remove the kinds while the operators still run and can clean up, then the operators
	$(FLEETPLANE) delete -f dist/install.yaml --ignore-not-found

run: $(VENV)/.runtime ## Run the operators here, against that cluster, without webhooks
	$(FLEETPLANE) operators --install

docker-build: package ## Build the container image IMG for ARCH (amd64, arm64) from Debian packages, without a registry
	deploy/images/product/build.sh -t $(IMG) -a $(ARCH)

deb: package ## Build a Debian package for this machine into dist/
	deploy/debian/build.sh

test-e2e: system-packages $(VENV)/.test ## The end-to-end tests alone: real clients, real servers
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "e2e and not soak" tests/e2e

clean: ## Remove what was built
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
