# The two commands of a stranger are `make netlab` and `make test`.
.DEFAULT_GOAL := help
PY := .venv/bin/python
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
SOURCES := edge netlab models tests
# Most of what these tests do is wait for real parts: files of tests run side by side. The lab is one.
SIDE_BY_SIDE := -n 4 --dist loadfile --no-loadscope-reorder

.PHONY: help netlab down status models check test spec soak bench bench-lab bench-weights lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

netlab: ## install what is missing, bring the planet up, print what to try
	@netlab/setup.sh system
	@netlab/setup.sh venv runtime
	@$(MAKE) --no-print-directory models
	@$(SUDO) .venv/bin/poplab up

down: ## take the planet down; nothing is left
	@$(SUDO) .venv/bin/poplab down

status: ## what runs, where each city enters
	@$(SUDO) .venv/bin/poplab status

models: ## fetch, check, build and publish the models into models/store
	@netlab/setup.sh venv runtime
	@$(PY) -m models make

check: ## format, lint, types, import rules
	@netlab/setup.sh venv dev
	@.venv/bin/ruff format --check --quiet $(SOURCES)
	@.venv/bin/ruff check --quiet $(SOURCES)
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo

test: ## check, then spec, service and lab tests
	@netlab/setup.sh system nftables faketime
	@$(MAKE) --no-print-directory check models
	@$(PY) -m pytest $(SIDE_BY_SIDE) tests/service tests/gpu tests/spec
	@$(SUDO) $(PY) -m pytest tests/lab

spec: ## the pure tests alone
	@$(PY) -m pytest tests/spec

soak: ## the long ones
	@netlab/setup.sh system nftables faketime
	@netlab/setup.sh venv dev
	@$(MAKE) --no-print-directory models
	@$(SUDO) $(PY) -m pytest tests/soak -m soak --timeout 3600

bench: ## ratios from one interleaved run
	@netlab/setup.sh system wrk
	@netlab/setup.sh venv dev
	@$(PY) -m tests.bench

bench-lab: ## the planet: what the WAN adds, how soon it converges, what `up` takes
	@netlab/setup.sh system
	@netlab/setup.sh venv dev
	@$(MAKE) --no-print-directory models
	@$(SUDO) $(PY) -m tests.bench.wan
	@$(SUDO) $(PY) -m tests.bench.up
	@$(SUDO) $(PY) -m tests.bench.convergence

bench-weights: ## weights: cold starts, loads, faults, a region at once, eviction, estimates, the index
	@netlab/setup.sh system
	@netlab/setup.sh venv dev
	@$(PY) -m tests.bench.weights
	@$(PY) -m tests.bench.load
	@$(PY) -m tests.bench.fetchfaults
	@$(PY) -m tests.bench.cutthrough
	@$(PY) -m tests.bench.eviction
	@$(PY) -m tests.bench.estimate
	@$(PY) -m tests.bench.index

lock: ## write .lock/ anew from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml --group build --group dev -o .lock/dev.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml --group build -c .lock/dev.txt -o .lock/runtime.txt

clean: down ## remove what was built here: .venv, models, caches
	rm -rf .venv models/cache models/store .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
