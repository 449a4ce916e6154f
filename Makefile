# `make help` lists the verbs. Python's part of everything lives in .venv, the agent in src/skerry/_bin/.

SHELL := /bin/bash
PYTHON := .venv/bin/python
ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
ARCHITECTURE := $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(shell uname -m)))
AGENT := src/skerry/_bin/agent
AGENT_SOURCES := $(shell find agent -name '*.go' ! -name '*_test.go') agent/go.mod

.DEFAULT_GOAL := help
.PHONY: help setup run templates clients test test-python test-agent test-slow test-templates bench e2b-counts check format agent agent-all wheel template image doctor clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z0-9 -]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## install what is missing: system packages, .venv, the agent, the base template
	@bash tools/setup.sh

run: setup  ## set up, then run an example in a sandbox
	@bash tools/run-example.sh

test: setup templates clients test-agent check test-python  ## set up, then the whole suite

templates:  ## the templates that the tests need beyond base
	@mkdir -p build
	@$(ROOT) $(PYTHON) -m skerry.host.images build code-interpreter-v1 > build/templates.log 2>&1 || { tail -30 build/templates.log; exit 1; }

clients:  ## the third-party clients that the tests run
	@bash tools/clients.sh

test-agent:
	cd agent && GOTOOLCHAIN=local GOFLAGS=-buildvcs=false ../.venv/bin/go vet ./...
	cd agent && GOTOOLCHAIN=local GOFLAGS=-buildvcs=false timeout 600 ../.venv/bin/go test ./...

# Those of the driver and the node move pytest itself into a mount namespace, as the server does; others must not be there.
IN_NAMESPACE := tests/drivers tests/node
PYTEST := $(ROOT) env SKERRY_TEST_COMPLETE=1 $(PYTHON) -m pytest -q

test-python:
	$(PYTEST) -m "not slow and not templates" $(addprefix --ignore=,$(IN_NAMESPACE))
	$(PYTEST) -m "not slow and not templates" $(IN_NAMESPACE)

test-slow: setup  ## the long proofs: leaks, fuzzing, churn
	$(PYTEST) -m slow $(addprefix --ignore=,$(IN_NAMESPACE))
	$(PYTEST) -m slow $(IN_NAMESPACE)
	cd agent && GOTOOLCHAIN=local GOFLAGS=-buildvcs=false timeout 600 ../.venv/bin/go test -run '^$$' -fuzz FuzzReadFrame -fuzztime 2m .

test-templates: setup  ## build every template that ships and use each (ten minutes at first and 5 GB, then five)
	@bash tools/clients.sh desktop
	@mkdir -p build
	@for file in src/skerry/templates/*.toml; do name=$$(basename $$file .toml); \
	    $(ROOT) $(PYTHON) -m skerry.host.images build $$name > build/$$name.log 2>&1 || { tail -30 build/$$name.log; exit 1; }; \
	    tail -1 build/$$name.log; done
	$(PYTEST) -m templates tests/templates

bench: setup  ## the benchmark tables (about half an hour)
	$(ROOT) $(PYTHON) -m bench

e2b-counts: clients templates  ## run E2B's clients and write what passed into docs/reference/e2b.md
	$(ROOT) $(PYTHON) tools/e2b_counts.py

check:  ## style, types, generated code
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	$(PYTHON) tools/async_to_sync.py --check
	$(PYTHON) tools/reference_docs.py --check
	$(PYTHON) tools/e2b_counts.py --check

format:  ## let ruff rewrite what it can
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

agent: $(AGENT)-$(ARCHITECTURE)  ## the in-sandbox agent, for this machine
	@:

agent-all: $(AGENT)-amd64 $(AGENT)-arm64  ## the agent for amd64 and arm64
	@:

$(AGENT)-%: $(AGENT_SOURCES)
	@bash tools/build-agent.sh $* $@

wheel: agent-all  ## dist/skerry-*.whl, with the agents in it
	$(PYTHON) -m hatchling build -t wheel

image: template
template:  ## the base template, if it is not built yet
	@$(ROOT) $(PYTHON) -m skerry.host.images build base

doctor:  ## check this machine; says what to do about each failure
	@$(ROOT) .venv/bin/skerry doctor

clean:  ## remove what was built here; templates stay
	rm -rf src/skerry/_bin build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
