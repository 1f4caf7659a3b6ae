# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.
# Everything is installed by these rules into .venv and the user's cache; nothing is written elsewhere. But as
# root on Debian: `images`, `images-test` and `cluster-test` install docker.io and debootstrap where no Docker daemon answers, and
# `cluster-test` what it lacks of containerd and more.
PYTHON ?= python3
MINUTES ?= 6
VENV := .venv
BIN := $(VENV)/bin
LAB := $(BIN)/holdfast lab run --
PYTEST := $(BIN)/pytest
DOCKER := $(BIN)/python images/daemon.py --

.DEFAULT_GOAL := help
.PHONY: help install demo test lint unit lab-test cluster-test images images-test bench soak mutants chaos clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# One stamp, so that a change of the locks installs again and nothing else does.
$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "holdfast needs Python 3.11 or later: install it, or say PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "holdfast needs Python 3.11 or later; $(PYTHON) is older: say PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(VENV)/.installed  ## make .venv with everything that is locked in requirements/dev.txt

demo: install  ## the main job, seen working: about 40 s once the control plane's binaries are there
	@$(BIN)/holdfast demo

test: lint unit images-test lab-test cluster-test  ## everything that is tested: lint, unit, simulation, images, the lab, real kubelets

lint: install  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy images
	$(BIN)/lint-imports

unit: install  ## pure code: tables, properties, simulation
	$(PYTEST) --ignore=tests/lab --ignore=tests/worlds --ignore=tests/cluster --ignore=tests/images

lab-test: install  ## real kernel, real API server, in a closed world of network namespaces
	$(LAB) $(PYTEST) tests/lab
	$(BIN)/holdfast lab run --old-etcd -- $(PYTEST) tests/worlds

LOAD ?= docker
BASE ?=
images: install  ## build the images with Docker; LOAD=docker|kind|ctr|tar says where they go, BASE=IMAGE what they stand on
	@$(DOCKER) $(BIN)/python images/build.py --load $(LOAD) --base "$(BASE)"

images-test: install  ## build the images twice, compare them, and run them as a Pod does
	$(DOCKER) $(PYTEST) tests/images

cluster-test: install  ## two real kubelets in a closed world; root only, on cgroup v1, with containerd and more from Debian
	$(BIN)/holdfast lab run --real -- $(PYTEST) tests/cluster
	$(BIN)/holdfast lab run --real -- $(PYTEST) tests/cluster/test_guide.py --cni macvlan

bench: install  ## the figures of docs/benchmarks.md, measured on this machine
	@for each in benchmarks/bench_*.py; do $(LAB) $(BIN)/python $$each || exit 1; done

SCHEDULES ?= 1000000
soak: install  ## many random schedules of faults in the simulator; SCHEDULES=N says how many
	$(BIN)/python -m tests.simulation.soak --schedules $(SCHEDULES)

mutants: install  ## break the protocol's rules one at a time, and see the simulator find each
	$(BIN)/python -m tests.simulation.mutants

chaos: install  ## every fault one by one, then all at once for MINUTES: writes docs/chaos.html
	$(LAB) $(BIN)/python -m lab.chaos --out docs/chaos.html --minutes $(MINUTES)

clean:  ## remove what these rules made in the checkout (the cache of binaries stays)
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
