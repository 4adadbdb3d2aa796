# Everything that is done here by hand or by CI: `make` lists it. Plain POSIX make; what is longer is a script.

VENV = .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
NODES = 3
PORT = 8501
DATA = .kvorum
SEEDS = 200
JOBS = 2
STATES = 200000
IMAGES = 1000
KILLS = 20
FAULTS = 36
REQUESTS = 100000
OPERATIONS = 20000
SCHEDULES = 100000
EXPLORED = 10000000
KEYS = 1000000
PAIRS = 1
GROWTH =
TEST_OPTIONS =

.POSIX:
.SUFFIXES:
.PHONY: help setup consul run test test-image raft-wheel-test sim sim-twice scenarios coverage explore sim-record explore-record crash-images differential mutants mutants-service session-faults watch-faults fuzz-http write-faults leader-changes verify format up down logs chaos-quick bench bench-quick bench-acl bench-redis bench-micro bench-cpu bench-million bench-growth bench-failover bench-waiters bench-wiped build lock docs clean clean-data

help: ## list every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## make the virtual environment in .venv with the locked packages (done by others when needed)

$(STAMP): requirements-dev.lock requirements-build.lock pyproject.toml raft/pyproject.toml
	@tests/setup-venv.sh $(VENV)
	@touch $(STAMP)

consul: ## a real Consul in .consul, for the tests that compare with one (from Debian's mirror; nothing is installed)
	@tests/get-consul.sh .consul

run: $(STAMP) ## a three-node cluster of real processes on 127.0.0.1:8501-8503 (NODES, PORT, DATA); Ctrl-C stops it
	@$(BIN)/kvorum dev --nodes $(NODES) --data-dir $(DATA) --port $(PORT)

test: $(STAMP) ## every test; those that need a Docker engine run where one is found (TEST_OPTIONS)
	@$(BIN)/python tests/run_all.py $(TEST_OPTIONS)

test-image: ## the tests without containers and slow ones, on the Python of the image
	@docker/test-in-image.sh

raft-wheel-test: $(STAMP) ## the tests of raft/ against its wheel alone, away from this checkout
	@tests/raft-wheel.sh $(VENV)

sim: $(STAMP) ## simulated schedules on fresh seeds (SEEDS=200)
	@$(BIN)/python -m raft.testing.sim --count $(SEEDS) --jobs $(JOBS)

sim-twice: $(STAMP) ## the same schedules, compiled and interpreted, under different hash seeds, take the same steps (SEEDS=200)
	@$(BIN)/python -m raft.testing.compiled compare --count $(SEEDS) --jobs $(JOBS)

scenarios: $(STAMP) ## the catalogue of Raft scenarios: how many there are, have a test, pass
	@$(BIN)/python -m tests.raft.scenarios

coverage: $(STAMP) ## lines and branches of raft/core that its own tests reach: all, or it fails
	@$(BIN)/python -m pytest -q -n $(JOBS) --cov=raft.core --cov-branch --cov-fail-under=100 --cov-report=term-missing tests/raft/core tests/raft/scripts

explore: $(STAMP) ## every order of events of a small cluster, the real core (STATES=200000)
	@$(BIN)/python -m raft.testing.explore --states $(STATES) --jobs 2

sim-record: $(STAMP) ## go on with the recorded schedules until there are SCHEDULES of this core
	@$(BIN)/python -m raft.testing.compiled sim --record docs/testing/schedules.json --until $(SCHEDULES) --jobs $(JOBS) --require-markers
	@$(BIN)/python -m raft.testing.record_page docs/testing.md

explore-record: $(STAMP) ## go on with the recorded exploration until there are EXPLORED states; what it has seen is kept in .explored
	@$(BIN)/python -m raft.testing.explore --record docs/testing/states.json --table .explored --until $(EXPLORED) --jobs $(JOBS)
	@$(BIN)/python -m raft.testing.record_page docs/testing.md

crash-images: $(STAMP) ## a node killed, torn and without power at every call that writes (IMAGES=1000)
	@$(BIN)/python -m raft.testing.crashes --images $(IMAGES)

differential: $(STAMP) ## the same random requests to a real Consul and to kvorum (OPERATIONS=20000; make consul)
	@$(BIN)/python -m tests.differential --operations $(OPERATIONS) --jobs $(JOBS)

mutants: $(STAMP) ## planted faults of the Raft core: the simulator must find each
	@$(BIN)/python -m raft.testing.mutants --jobs 2 --limit 3000

mutants-service: $(STAMP) ## planted faults of the service: a test must notice each
	@$(BIN)/python -m tests.mutants_service --jobs 2

session-faults: $(STAMP) ## 200 sessions with locks through kills of the leader, judged by the whole log (KILLS=20)
	@$(BIN)/python -m tests.processes.session_faults --sessions 200 --kills $(KILLS)

watch-faults: $(STAMP) ## 200 watchers through kills of the leader, each answer judged (KILLS=20)
	@$(BIN)/python -m tests.processes.watch_faults --watchers 200 --kills $(KILLS)

fuzz-http: $(STAMP) ## random requests, half of them malformed, to the web server and to gunicorn's beside it (REQUESTS=100000)
	@$(BIN)/python -m tests.service.worker.fuzz --requests $(REQUESTS) --jobs $(JOBS)

write-faults: $(STAMP) ## writes of every kind through faults of nine kinds: what was called failed never shows (FAULTS=36)
	@$(BIN)/python -m tests.processes.write_faults --kills $(FAULTS)

leader-changes: $(STAMP) ## sessions over a hundred changes of the leader
	@$(BIN)/python -m tests.processes.session_faults --sessions 100 --kills 20 --transfers 80 --settled-seconds 1

verify: $(STAMP) ## linters, types, import direction, shell scripts: what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	shellcheck .ci/run docker/*.sh tests/*.sh

format: $(STAMP) ## bring the code into the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

up: ## three nodes in containers on 127.0.0.1:8501-8503, healthy when it returns
	@docker/up.sh

down: ## stop and remove the containers; their data stay
	@docker/compose.sh down --remove-orphans

logs: ## follow the logs of the containers
	@docker/compose.sh logs --follow --tail=100

chaos-quick: $(STAMP) up ## import /etc, stop the leader while a writer runs, stop and start everything: every byte must be there
	@$(BIN)/python tests/docker/chaos_quick.py

bench-failover: $(STAMP) ## kill -9 of the leader under load (KILLS=20): time to the next acknowledged write
	@$(BIN)/python benchmarks/failover.py --kills $(KILLS)

bench: $(STAMP) .pysyncobj ## beside Consul, etcd and PySyncObj, as far as they are here: tables and plots into docs/performance (a quarter of an hour)
	@$(BIN)/python -m benchmarks.compare --out docs/performance

.pysyncobj: requirements-bench.lock
	@$(BIN)/pip install --quiet --no-deps --require-hashes --target .pysyncobj --requirement requirements-bench.lock

bench-quick: $(STAMP) ## a minute of it: a few rows beside Consul, nothing to quote
	@$(BIN)/python -m benchmarks.compare --quick

bench-acl: $(STAMP) ## beside Consul with ACLs on at both, denying by default
	@$(BIN)/python -m benchmarks.compare --acl

bench-redis: $(STAMP) ## ?cached reads through a Redis beside kvorum
	@$(BIN)/python -m benchmarks.compare --redis

bench-micro: $(STAMP) ## what the parts of a node cost, each by itself (half a minute)
	@$(BIN)/python benchmarks/micro.py

bench-cpu: $(STAMP) ## microseconds of processor time a request, by process
	@$(BIN)/python -m benchmarks.cpu

bench-million: $(STAMP) ## a million keys here and in Consul: load, memory, disk, listing, restart (KEYS=1000000 PAIRS=1)
	@$(BIN)/python -m benchmarks.million --keys $(KEYS) --pairs $(PAIRS)

bench-growth: $(STAMP) ## how cost grows with nodes, values, keys and connections (half an hour; GROWTH=--quick: two minutes)
	@$(BIN)/python -m benchmarks.growth $(GROWTH)

bench-waiters: $(STAMP) ## 10,000 idle blocking queries on one node, 2,000 woken at once: memory, times
	@$(BIN)/python benchmarks/waiters.py

bench-wiped: $(STAMP) ## a follower loses its disk among a million keys: times, memory, lost writes
	@$(BIN)/python benchmarks/wiped_follower.py

build: $(STAMP) ## the wheels of raft/ and kvorum, in dist/
	@rm -rf dist build raft/build
	@$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist ./raft .
	@ls -l dist

lock: $(STAMP) ## refresh the lock files (needs uv, which it installs into .venv)
	@tests/lock.sh $(VENV)

docs: $(STAMP) ## the reference pages that are generated from the code
	@$(BIN)/python -m service.settings_text > docs/settings.md
	@$(BIN)/python -m raft.testing.pages
	@$(BIN)/python -m raft.testing.record_page docs/testing.md
	@$(BIN)/python -m tests.compatibility

clean: ## remove what was built and cached; data and .venv stay
	@rm -rf dist build raft/build *.egg-info raft/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find raft service tests -name __pycache__ -type d -prune -exec rm -rf {} +
	@docker volume rm kvorum-test-environment >/dev/null 2>&1 || true

clean-data: ## remove the DATA of `make run` and of the containers: every key is gone
	@docker/compose.sh down --volumes --remove-orphans
	@rm -rf $(DATA)
