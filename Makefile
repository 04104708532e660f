# The verbs of this checkout; `make help` lists them. Everything is installed into .venv by
# tools/uv, which needs nothing but a Python >= 3.11 with venv or pip.
#
#   make test T=tests/unit            # one ring, one file, or any other argument of pytest
#   make up DATA=/tmp/mw ARGS=...     # another data directory, more arguments of `midwatch up`

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
# The checkout's own environment, whatever is active outside.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME
# Compiled once, here: a hub that compiles its libraries at each start takes a second longer.
export UV_COMPILE_BYTECODE := 1

UV := tools/uv
BIN := .venv/bin
# What is installed follows from these two files; the stamp carries their checksum, so that a fresh
# checkout, a switched branch or an old clock cannot deceive.
LOCK := $(shell cat pyproject.toml uv.lock tools/uv | cksum | tr ' ' -)
SERVER := .venv/.server-$(LOCK)
DEV := .venv/.dev-$(LOCK)
ALL := --extra server --extra examples

.PHONY: help setup dev up test check .types .rules format docs bench emitters frameworks chaos soak clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(SERVER) ## install into .venv what it takes to run Midwatch
	@:

dev: $(DEV) ## install into .venv what tests and checks take as well
	@:

$(SERVER):
	@echo "installing Midwatch into .venv"
	@$(UV) sync --quiet --frozen --inexact --no-dev $(ALL)
	@$(BIN)/python -m compileall -q src
	@rm -f .venv/.server-* && touch $@

$(DEV): $(SERVER)
	@echo "installing what tests and checks need into .venv"
	@$(UV) sync --quiet --frozen --inexact --dev $(ALL)
	@rm -f .venv/.dev-* && touch $@

# Real providers when there are keys for both of the clients that the sample fleet uses;
# otherwise the rehearsal model, which costs nothing.
REHEARSAL = $(if $(and $(OPENAI_API_KEY),$(ANTHROPIC_API_KEY)),,--rehearsal)

up: setup ## run the sample fleet: three agents, pages on http://127.0.0.1:8700
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec midwatch up -f examples/fleet/midwatch.yaml $(REHEARSAL) $(if $(DATA),--data $(DATA)) $(ARGS)

# T chooses (a ring, a file, -k ...); without it every ring runs, fast ones first. Tests that drive
# whole instances share one worker (tests/conftest.py), the rest is spread over the cores.
T ?= tests
JOBS ?= auto

test: $(DEV) ## run every ring of tests; T=... chooses
	@tools/browser $(T)
	@$(BIN)/python -m pytest -m "not long" -n $(JOBS) --maxprocesses=8 --dist loadgroup -q $(T)

check: $(DEV) ## ruff, pyright, import-linter, docs and sizes
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "not formatted: run make format"; exit 1; }
	@$(MAKE) -j2 -k .types .rules

# Half of a minute each on one core: beside one another.
.types:
	@$(BIN)/basedpyright --level error

.rules:
	@$(BIN)/python -m pytest -q -m "not long" -p no:hypothesispytest tests/architecture --ignore=tests/architecture/test_package.py

format: $(DEV) ## let ruff mend what it can
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format --quiet

docs: $(DEV) ## rewrite the reference tables from the code's own tables
	@$(BIN)/python tools/reference.py

bench: $(DEV) ## run the benchmarks, each against its peers; B=... chooses
	@$(BIN)/python bench/run.py $(B)

# Where the emitters and frameworks live that these two install, in their newest versions; a folder of one's own keeps
# them. E=NAME... chooses emitters.
EMITTERS ?= .emitters

emitters: $(DEV) ## record what the newest emitters send, and print what becomes of it
	@$(BIN)/python tests/emitters/install.py --home $(EMITTERS)
	@$(BIN)/python tests/emitters/record.py --home $(EMITTERS) $(E)
	@$(BIN)/python tests/emitters/matrix.py

frameworks: $(DEV) ## run the newest agent frameworks through the gateway, and print what they see
	@$(BIN)/python tests/emitters/install.py --home $(EMITTERS)
	@$(BIN)/python tests/emitters/through.py --home $(EMITTERS)

# C=tests/chaos/test_telemetry_audit.py chooses one of them; the two of telemetry take five minutes.
C ?= tests/chaos

chaos: $(DEV) ## the chaos tests in their full length: minutes of kill -9; C=... chooses
	@$(BIN)/python -m pytest -m long $(C)

soak: $(DEV) ## every other long test: ten quiet minutes of the sample fleet, and the like
	@$(BIN)/python -m pytest -m long tests --ignore=tests/chaos

clean: ## remove what can be made again, .venv and .uv too
	@rm -rf .venv .uv .emitters bench/out dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
