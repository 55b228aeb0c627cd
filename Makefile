# Every command of the project. `make help` lists them, from the text behind ##.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What `uv sync` installs beside the packages themselves; PyTorch is for the tests of the torch engine alone.
GROUPS := --group mlflow
TEST_GROUPS := $(GROUPS) --group torch
RUN := uv run --no-sync
PYTEST := $(RUN) pytest --durations=15
# The tests have a cluster of their own beside the demo's, unless KUBECONFIG names one of yours.
TEST_CLUSTER := hack/cluster --name test
# The cluster's tools on PATH (helm, kubectl) and KUBECONFIG.
WITH_CLUSTER := eval "$$($(TEST_CLUSTER) env)" &&

SHELL_SCRIPTS = $(shell git grep -lE '^\#!.*\bbash' -- hack operator .ci)
PYTHON_SCRIPTS = $(shell git grep -lE '^\#!.*\bpython3' -- hack)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The main job

.PHONY: demo
demo: setup ## A real cluster, MLflow, the operator, three models: from nothing to predictions
	hack/demo

.PHONY: demo-down
demo-down: ## Remove everything that the demo made
	hack/demo down

.PHONY: images
images: setup ## Build the images of the operator and of the runtime
	hack/images build

# Tests

.PHONY: test
test: TEST_SETUP := $(TEST_GROUPS)
test: setup ## All tests, on a real cluster: check, unit, contract, runtime, end to end
	$(MAKE) --jobs=2 test-cluster test-images
	$(MAKE) lint
	$(WITH_CLUSTER) $(PYTEST) -m "not long"

.PHONY: test-cluster
test-cluster: ## Start the cluster of the tests, with a Gateway
	$(TEST_CLUSTER) up --audit --gpus 4
	$(TEST_CLUSTER) gateway

# The first time, the cluster's programs keep both cores busy and the images wait for downloads and the disk: together they
# take minutes less. A cluster of yours has its images already.
.PHONY: test-images
test-images: ## Build the images of the tests, PyTorch's too
	[[ -n "$${KUBECONFIG:-}" ]] || { hack/images build --variant all && hack/images build --variant runtime-gpu; }

.PHONY: check
check: lint ## All that needs no cluster and no patience: format, lint, types, layers, scripts, chart, generated files
	$(WITH_CLUSTER) $(PYTEST) -q -m "not cluster and not long" tests/chart tests/contract/test_crd.py tests/contract/test_docs.py

.PHONY: unit
unit: ## The tests that need no cluster
	$(WITH_CLUSTER) $(PYTEST) -m "not cluster and not long"

.PHONY: contract
contract: ## Fakes and real adapters, CRD and parser, documents and code, held to each other
	$(WITH_CLUSTER) $(PYTEST) -m "not long" tests/contract tests/chart

.PHONY: e2e
e2e: test-cluster ## The whole product on a real cluster
	$(WITH_CLUSTER) $(PYTEST) -m "not long" tests/e2e

.PHONY: e2e-long
e2e-long: test-cluster ## Many repetitions; minutes to hours
	$(WITH_CLUSTER) $(PYTEST) -m long

# Measurements

.PHONY: bench
bench: setup ## Measure everything on clusters of its own, and write the tables of docs/benchmarks.md
	hack/images build --variant all
	hack/bench all --write

# Parts

.PHONY: setup
setup: ## Install what is missing here, and the Python packages into .venv
	hack/install
	uv sync --locked --inexact $(or $(TEST_SETUP),$(GROUPS))

.PHONY: lint
lint: ## Format, lint, types, layers, shell scripts, chart, generated files
	uv lock --check
	$(RUN) ruff format --check . $(PYTHON_SCRIPTS)
	$(RUN) ruff check . $(PYTHON_SCRIPTS)
	$(RUN) mypy -p moorage_operator -p moorage_runtime
	$(RUN) mypy --python-version 3.10 cli/kubectl_moorage.py
	$(RUN) mypy tests hack/generate.py hack/mlflow_server.py hack/load hack/devcluster hack/benchmarks
	$(RUN) lint-imports
	shellcheck --external-sources $(SHELL_SCRIPTS)
	$(WITH_CLUSTER) helm lint --strict --quiet charts/moorage
	$(RUN) python hack/generate.py --check

.PHONY: generate
generate: ## Write what is made from something else: docs/api.md, the chart's CRD and tables
	$(RUN) python hack/generate.py

.PHONY: format
format: ## Format the Python code
	$(RUN) ruff format . $(PYTHON_SCRIPTS)
	$(RUN) ruff check --fix . $(PYTHON_SCRIPTS)
