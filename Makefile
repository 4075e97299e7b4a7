# Every target works alone on a machine that has only Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WORKERS ?= auto
unexport PYTHONDONTWRITEBYTECODE # the tests start many processes, which start faster from compiled files
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup
# tests/conftest.py says how many processes `auto` is.

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' $(MAKEFILE_LIST)) # every target below

help: ## Show every command
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Rapids needs Python 3.11 or newer; {sys.executable} is {v[0]}.{v[1]}. Set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(INSTALLED) ## Create the environment (.venv) and install everything into it

servers: $(INSTALLED) ## Download the servers of the test matrix and unpack them into .servers/
	@$(BIN)/python -m tests.servers.unpack

servers-if-possible: $(INSTALLED) # a test fails if its server is missing, and names it
	-@$(BIN)/python -m tests.servers.unpack

demo: $(INSTALLED) ## Run the order-fulfilment example on an embedded server, until Ctrl-C
	@$(BIN)/python -m example_app

test: servers-if-possible ## Run all tests except the slow ones, and one slow test of each kind
	$(PYTEST) -m 'not slow or smoke'

test-all: servers-if-possible ## Run every test
	$(PYTEST)

test-busy: servers-if-possible ## Run every test three times while four busy loops occupy the cores
	$(BIN)/python -m tests.busy $(PYTEST) --exitfirst

test-oldest: servers-if-possible ## Run the tests with the oldest libraries that the metadata admits; TESTS="tests/fastapi" runs these
	$(BIN)/python -m tests.packaging.oldest $(TESTS)

coverage: servers-if-possible ## Run every test and report branch coverage; fail below the figure in pyproject.toml
	$(PYTEST) --cov

coverage-quick: servers-if-possible ## Run the tests that are not slow and report their branch coverage; fail below 93.4 %
	$(PYTEST) -m 'not slow' --cov --cov-fail-under=93.4

coverage-slow: servers-if-possible ## List the lines that only slow tests reach
	COVERAGE_FILE=.coverage.quick $(PYTEST) -m 'not slow' --cov --cov-report= --cov-fail-under=0
	COVERAGE_FILE=.coverage.slow $(PYTEST) -m slow --cov --cov-report= --cov-fail-under=0
	@$(BIN)/python -m tests.slow_coverage .coverage.quick .coverage.slow

test-unit: $(INSTALLED) ## Run the tests that need no server
	$(PYTEST) -m 'not integration and not slow'

test-integration: servers-if-possible ## Run the tests that need a server, except the slow ones
	$(PYTEST) -m 'integration and not slow'

test-matrix: servers ## Run the delivery suite on every kind of server, then the mixed fleet; MATRIX="redis-6.2 cluster" runs it on these servers only
	$(BIN)/python -m tests.matrix $(MATRIX)
	$(if $(MATRIX),,$(MAKE) test-mixed-fleet)

test-mixed-fleet: $(INSTALLED) ## Run services on rapids-streams 0.3.0 and on Rapids with one stream (needs Python 3.12)
	$(BIN)/python -m tests.mixed_fleet.environment
	$(BIN)/python -m pytest tests/mixed_fleet

chromium: # no Python package has it
	@command -v chromium > /dev/null \
		|| { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium > /dev/null; } \
		|| { echo 'the tests of the dashboard need a browser: run "apt-get install chromium" as root' >&2; exit 1; }

test-browser: $(INSTALLED) chromium ## Use the dashboard in a browser
	$(BIN)/python -m pytest tests/browser

screenshots: $(INSTALLED) chromium ## Take a picture of each page of the dashboard, in SCREENSHOTS (screenshots/)
	$(BIN)/python -m tests.browser.screenshots $(or $(SCREENSHOTS),screenshots)

scale: $(INSTALLED) chromium ## Measure the dashboard over LETTERS (1000000) dead letters, 200 event types and 50 groups
	$(BIN)/python -m tests.browser.scale --letters $(or $(LETTERS),1000000)

vendored: $(INSTALLED) ## Take the dashboard's modules of other projects from the npm registry again
	$(BIN)/python -m tests.house.vendored

chaos: $(INSTALLED) ## Kill, stop and pause processes for CHAOS_SECONDS (120) and count what is lost; CHAOS_SEED repeats a run; TOPOLOGY=sentinel or cluster adds failovers
	$(BIN)/python -m tests.chaos --seconds $(or $(CHAOS_SECONDS),120) --topology $(or $(TOPOLOGY),standalone) $(if $(CHAOS_SEED),--seed $(CHAOS_SEED))

soak: $(INSTALLED) ## Emit, handle, fail and replay for SOAK_SECONDS (600), and check that nothing grows
	$(BIN)/python -m tests.chaos.soak --seconds $(or $(SOAK_SECONDS),600)

bench: $(INSTALLED) ## Compare with a hand-written loop, rapids-streams 0.3.0 and FastStream in BENCH_ROUNDS (5) rounds; BENCH_ARGS="--contenders ours,before" compares with an earlier commit
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

luacheck: # checks the Lua scripts; no Python package has it
	@command -v luacheck > /dev/null \
		|| { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq lua-check > /dev/null; } \
		|| { echo 'make lint needs luacheck: run "apt-get install lua-check" as root, or "luarocks install luacheck"' >&2; exit 1; }

lint: $(INSTALLED) luacheck spelling ## Check style, spelling, imports between layers, the house rules, and types of exported symbols
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_house.py
	$(BIN)/python -m tests.house.lua
	$(BIN)/python -m tests.house.symbols
	$(BIN)/python -m tests.house.javascript

alerts: ## Check the alerts for Prometheus, and when they fire, with promtool
	@command -v promtool > /dev/null \
		|| { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus > /dev/null; } \
		|| { echo 'make alerts needs promtool: run "apt-get install prometheus" as root, or take it from prometheus.io' >&2; exit 1; }
	promtool check rules docs/prometheus/rapids-alerts.yml
	promtool test rules tests/metrics/alerts_test.yml

spelling: $(INSTALLED) ## Find misspelt words, and words that the glossary replaces
	$(BIN)/codespell

docs: $(INSTALLED) ## Build the site of the documentation into site/; fail on a link that leads nowhere
	@$(BIN)/python -m tests.docs.site

dist: docs ## Build the wheel and the sdist into dist/
	$(BIN)/python -m hatchling build --clean

figures: $(INSTALLED) ## Count modules, names and lines, and the modules an event passes
	@$(BIN)/python -m tests.house.figures

pins: $(INSTALLED) ## Record the public API, the wire format, key names and OpenAPI in tests/pins/; review the difference
	$(BIN)/python -m tests.pins

format: $(INSTALLED) ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m tests.house.tree

typecheck: $(INSTALLED) ## Check types strictly
	$(BIN)/pyright
	$(BIN)/pyright -p tests/typing

ci: export CI = 1
ci: install luacheck servers ## Run everything that CI runs: lint, types, the site, alerts, the demo once, chaos, the matrix, all tests
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target ci-chaos ci-collected ci-matrix lint typecheck docs alerts ci-demo # chaos waits
	$(PYTEST) --ignore tests/test_house.py --ignore tests/chaos/test_chaos.py # which ran in lint and ci-chaos

ci-demo: $(INSTALLED)
	$(BIN)/python -m example_app --once

ci-collected: $(INSTALLED) # compiles the tests once: each process of the run would do it, at the same time
	$(BIN)/python -m pytest --collect-only --quiet --quiet > /dev/null

ci-chaos: $(INSTALLED)
	$(BIN)/python -m tests.chaos --seconds 120 --seed $(or $(CHAOS_SEED),11)
	$(BIN)/python -m tests.chaos --topology cluster --seconds 30 --seconds-between-failovers 5 --rate 50 --workers 4 --seed $(or $(CHAOS_SEED),12)

ci-matrix: servers # the oldest server and the Cluster; all other tests run on the newest server
	$(BIN)/python -m tests.matrix --core redis-6.2 cluster

clean: ## Remove the environment, the servers and caches
	rm -rf $(VENV) .bench .docs .nox .oldest .servers dist site .coverage* .pytest_cache .ruff_cache .hypothesis
