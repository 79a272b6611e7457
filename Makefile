# Two commands for newcomers: `make run` and `make test`. Each does all its own set-up.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
BUS ?= embedded
NOMAD ?= embedded
ARGS ?=

# Empty is off: what is compiled once is kept, by the tests too, which start many a process.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run up up-real run-real test fast lint types contracts format bench docs docs-check lock clean
.DEFAULT_GOAL := run

# -- set-up -------------------------------------------------------------------------------------------------------

$(VENV)/.run-ready: requirements.lock pyproject.toml client/pyproject.toml
	@echo "Setting up $(VENV) (once) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Serai needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e client
	@touch $@

$(VENV)/.dev-ready: $(VENV)/.run-ready requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

# -- the platform -------------------------------------------------------------------------------------------------

run: $(VENV)/.run-ready  ## run the example jobs on the embedded platform (BUS=amqp: over a RabbitMQ)
	@$(BIN)/serai-platform run --bus $(BUS) --nomad $(NOMAD) $(ARGS)

up: $(VENV)/.run-ready  ## start the embedded platform and leave it running
	@$(BIN)/serai-platform up --bus $(BUS) --nomad $(NOMAD) $(ARGS)

up-real: $(VENV)/.run-ready  ## start it on real parts, every service a process: RabbitMQ, PostgreSQL, Consul, Nomad
	@tests/set-up
	@$(BIN)/serai-platform up-real $(ARGS)

run-real: $(VENV)/.run-ready  ## run the example jobs on real parts
	@tests/set-up
	@$(BIN)/serai-platform run-real $(ARGS)

# -- development --------------------------------------------------------------------------------------------------

test: $(VENV)/.dev-ready  ## everything that can be tested here, servers included
	@tests/set-up
ifeq ($(strip $(ARGS)),)
	@$(BIN)/python tests/passes -m fast
	@$(BIN)/python tests/passes -m "not fast"
	@$(BIN)/python tests/passes -m hypothesis --hypothesis-profile=all-examples
else
	@$(BIN)/python -m pytest $(ARGS)
endif

fast: $(VENV)/.dev-ready  ## the tests that need nothing outside the process
	@$(BIN)/python -m pytest -m fast $(ARGS)

lint: $(VENV)/.dev-ready types contracts  ## style, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev-ready
	@$(BIN)/mypy services shared client/serai

contracts: $(VENV)/.dev-ready
	@$(BIN)/lint-imports

format: $(VENV)/.dev-ready
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.run-ready  ## measure on this machine: bench/results.json and a table (ARGS="read tell" for some)
	@$(BIN)/python -m bench $(ARGS)

docs: $(VENV)/.dev-ready  ## write the generated diagrams and references
	@$(BIN)/serai-platform docs docs

docs-check: $(VENV)/.dev-ready  ## fail when a generated document is not up to date
	@$(BIN)/serai-platform docs docs --check

LOCK := $(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --strip-extras \
	--allow-unsafe --no-annotate --build-deps-for editable

lock: $(VENV)/.dev-ready  ## make the hash-locked requirements anew from pyproject.toml
	@$(LOCK) --extra dev -o requirements-dev.lock pyproject.toml
	@$(LOCK) -c requirements-dev.lock -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .serai-runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
