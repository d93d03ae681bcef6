# One command each for set-up, check, test and run, the same for people and CI.
# Needs Python 3.11 with pip; the Compose targets need Docker too.
PYTHON ?= python3.11
DATASET ?= digits
CLIENTS ?= 3
SAMPLES ?= 200
ESTIMATOR ?= LogisticRegression
UV_VERSION := 0.13.9

UV := .uv/bin/uv
BIN := .venv/bin
# uv installs into the active environment: that is ours, whatever the shell has activated.
export VIRTUAL_ENV := $(CURDIR)/.venv
export UV_COMPILE_BYTECODE := 1
SERVICES := $(wildcard services/*)
PACKAGES := shared services/keyholder/lwe $(SERVICES)
SOURCES := $(PACKAGES:%=%/src)
# mypy wants one folder of tests at a time: file names such as conftest.py recur.
TESTS := $(sort $(dir $(wildcard tests/*.py tests/*/*.py tests/*/*/*.py)))
PROJECTS := pyproject.toml $(PACKAGES:%=%/pyproject.toml)
# Compiled where the package is installed.
NATIVE := $(wildcard services/*/native/* services/*/*/native/*)

# The core as WebAssembly, for browsers with and without vectors.
WEB := services/keyholder/web
CORE := services/keyholder/lwe/native
WASM := $(WEB)/dist/lwe.simd.wasm $(WEB)/dist/lwe.wasm
CONSOLE := services/console/web
PLOTS := $(CONSOLE)/node_modules/.installed
# deno takes its own settings, and looks for no newer release.
DENO := DENO_NO_UPDATE_CHECK=1 $(CURDIR)/$(BIN)/deno

.PHONY: help setup lock check format test test-compose bench bench-rounds demo clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

setup: .venv/.installed $(WASM) $(PLOTS) ## Install everything into .venv

$(UV):
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv uv==$(UV_VERSION)

.venv/.installed: $(UV) requirements/dev.txt requirements/torch.txt $(PROJECTS) $(NATIVE)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	requirements/install-torch $(UV) pip install
	$(UV) pip install --quiet --require-hashes --no-deps -r requirements/dev.txt
	$(UV) pip install --quiet --no-deps --no-sources $(PACKAGES:%=--editable %)
	touch $@

$(WEB)/dist/lwe.simd.wasm: WASM_FLAGS := -msimd128
$(WASM): .venv/.installed $(WEB)/build $(wildcard $(CORE)/*.[ch] $(CORE)/freestanding/*.h)
	$(WEB)/build $@ $(BIN)/python-zig $(WASM_FLAGS)

$(PLOTS): .venv/.installed $(CONSOLE)/package.json $(CONSOLE)/deno.lock
	cd $(CONSOLE) && $(DENO) install --quiet --frozen
	touch $@

lock: $(UV) ## Resolve the dependencies anew and write requirements/
	requirements/lock $(UV)

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cd $(WEB) && $(DENO) fmt --quiet
	cd $(CONSOLE) && $(DENO) fmt --quiet

check: setup ## Formatter, linters and strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(SOURCES)
	set -e; for folder in $(TESTS); do $(BIN)/mypy $$folder*.py; done
	$(BIN)/yamllint --strict compose.yaml docker/site.compose.yaml docker/kubernetes \
		docker/prometheus .pre-commit-config.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml docker/site.compose.yaml
	cd $(WEB) && $(DENO) fmt --quiet --check && $(DENO) lint --quiet && $(DENO) check --quiet
	cd $(CONSOLE) && $(DENO) fmt --quiet --check && $(DENO) lint --quiet && $(DENO) check --quiet
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/shellcheck requirements/lock requirements/install-torch .ci/run $(WEB)/build \
		tests/compose/constant_time/check.sh

test: setup ## All tests that need no Docker, on every core
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal

test-compose: setup ## Tests of the real containers
	$(BIN)/pytest -rP --durations 20 --timeout 5400 tests/compose

bench: setup ## Speed, as ratios in one run: writes build/bench; wants MNIST_PATH and an idle machine
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench.py

bench-rounds: CLIENTS = 10
bench-rounds: setup ## Where the time of a federated round goes: make bench-rounds CLIENTS=50; wants MNIST_PATH
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/rounds.py --clients $(CLIENTS)

demo: setup ## The whole way without Docker: DATASET=mnist CLIENTS=10 make demo
	$(BIN)/cloister demo --dataset $(DATASET) --estimator $(ESTIMATOR) --clients $(CLIENTS) --samples $(SAMPLES)

clean: ## Remove what make installed
	rm -rf .venv .uv $(WEB)/dist $(CONSOLE)/node_modules
