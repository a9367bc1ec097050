# Every target sets up what it needs: a fresh clone, Python 3.11 to 3.13, and for the tests Java 17 and Maven
# (or Docker, or KAFKA_BOOTSTRAP_SERVERS), and Prometheus' promtool (or apt-get, which fetches it).
.DEFAULT_GOAL := help
.PHONY: help demo services services-stop test serverless beside faults with-servers in-turn check fmt bench latency soak trial scale-trial plugin-trial litellm-matrix stripe-trial upgrade mutants fuzz ready reliability balance-trial clickhouse-test alarms-trial deploy-test chart chart-test lock sbom venv
MAKEFLAGS += --no-builtin-rules
# Hundreds of processes load the same modules: without compiled files each would compile them again.
unexport PYTHONDONTWRITEBYTECODE
#: The folders of tests that need a Kafka or a Postgres. All others but the fault tests need none.
WITH_SERVERS = tests/integration tests/e2e
#: What the tests without servers print; `make test` shows it after the tests that run beside them.
SERVERLESS_LOG = .cache/serverless.log
# Processes of the tests, for two cores: they mostly wait. Each has a Postgres of its own, and those of the fault tests a Kafka.
WORKERS ?= 6
FAULT_WORKERS ?= 5
MINUTES ?= 10
SEED ?= 1
ALL ?=
ARGS ?=
#: pytest's exit code when ARGS choose none of a run's tests.
NOTHING_CHOSEN = 5
# It runs beside another pytest: in one cache `--lf` would find the failures of only one of them.
serverless: export PYTEST_ADDOPTS += -o cache_dir=.cache/pytest-serverless

.DEFAULT:
	@echo "make: there is no target $@. \`make help\` lists all targets." >&2; exit 2

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: venv ## LiteLLM calls become Lago events on this machine alone: no Docker, no Java, no network
	.venv/bin/meterbridge demo $(ARGS)

services: venv ## a Kafka and a Postgres to try things out with, in the background; .meterbridge/services.env says where
	@.venv/bin/python -m tests.support.services

services-stop: venv ## end them, and delete their data
	@.venv/bin/python -m tests.support.services --stop

test: venv ## everything CI runs: the checks, then all tests on a real Kafka (ARGS="-k window" to choose)
	$(MAKE) -j 2 check ready
	$(MAKE) -j 2 beside in-turn; code=$$?; cat $(SERVERLESS_LOG); exit $$code
	.venv/bin/pytest -m alone $(ARGS) || [ $$? = $(NOTHING_CHOSEN) ]

# Tests with servers often wait. Tests without servers run in these pauses: they have no time limits that this breaks. A path in
# ARGS chooses its tests, so testpaths, and not a path, says which folders a run has otherwise.
serverless: venv
	.venv/bin/pytest $(addprefix --ignore=,$(WITH_SERVERS)) -m "not faults and not alone" -n 2 --dist worksteal $(ARGS) || [ $$? = $(NOTHING_CHOSEN) ]

beside:
	@mkdir -p $(dir $(SERVERLESS_LOG))
	@nice -n 5 $(MAKE) serverless > $(SERVERLESS_LOG) 2>&1

in-turn: # a failure in the first ones does not hide those of the others
	@code=0; for part in faults with-servers; do $(MAKE) $$part || code=1; done; exit $$code

faults: venv
	.venv/bin/pytest -m "faults and not alone" -n $(FAULT_WORKERS) --dist loadgroup --no-loadscope-reorder $(ARGS) || [ $$? = $(NOTHING_CHOSEN) ]

with-servers: venv
	.venv/bin/pytest -o testpaths="$(WITH_SERVERS)" -m "not faults and not alone" -n $(WORKERS) --dist worksteal $(ARGS) || [ $$? = $(NOTHING_CHOSEN) ]

# Beside the checks, which take one processor. The last line compiles the tests once: their workers would each do it.
ready: venv
	.venv/bin/python -m tests.support.kafka --fetch
	.venv/bin/python -m tests.support.prometheus --fetch
	.venv/bin/python -m tests.litellm_matrix --fetch
	.venv/bin/pytest --collect-only -qq | tail -1

check: venv ## format, lint, types, and the one direction of imports
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

fmt: venv ## format the code and repair what the linter can
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

bench: venv bench/.venv/.installed ## measure this product against its peers on the same records and broker
	.venv/bin/python -m bench $(ARGS)

latency: venv ## how long a call takes from its webhook to Lago, a mapping until held usage is there, and the API
	.venv/bin/python -m bench.latency $(ARGS)

soak: venv ## kill, freeze and cut real processes for MINUTES=10, and count every cent afterwards
	.venv/bin/python -m tests.faults.soak --minutes $(MINUTES) $(ARGS)

trial: venv ## poll jobs through a real LiteLLM proxy, in two weeks, with its database backfilled, and compare what Lago bills
	.venv/bin/python -m tests.proxy

scale-trial: venv ## three workers scale 1 -> 3 -> 1 and roll under 1,000 calls/s on three brokers, each of them killed once: every cent is counted
	.venv/bin/python -m tests.faults.scale_trial $(ARGS)

plugin-trial: venv ## kill LiteLLM proxies with the plugin 50 times under load: every answered call is billed once; then its latency
	.venv/bin/python -m tests.plugin_trial $(ARGS)

litellm-matrix: venv ## every kind of call through a real LiteLLM proxy: what is billed, and what differs from the recorded results (ARGS="--version 1.111.0")
	.venv/bin/python -m tests.litellm_matrix $(ARGS)

balance-trial: venv ## measure the time from a webhook until the balance shows its call, at 500 calls a second
	.venv/bin/python -m bench.balance $(ARGS)

stripe-trial: venv ## buy credits through Stripe's own mock server (needs Go and the network once), and take its shapes as webhooks
	.venv/bin/python -m tests.stripe_mock

upgrade: venv ## replace the processes of another version by ours under load: ARGS="--from FOLDER", a work tree after `make venv`
	.venv/bin/python -m tests.faults.rolling_upgrade $(ARGS)

mutants: venv tests/mutants/.venv/.installed ## named mistakes and 24 small changes of the rules (SEED=1, ALL=1): does a test notice?
	.venv/bin/python -m tests.mutants.run --seed $(SEED) $(if $(ALL),--all) $(ARGS)

fuzz: venv .venv/.fuzz ## coverage-guided fuzzing of everything that reads what comes in, for MINUTES=10
	.venv/bin/python -m tests.fuzz --minutes $(MINUTES) $(ARGS)

reliability: venv ## docs/reliability.md, from the fault matrix and the last run that kept its figures
	.venv/bin/python -m tests.faults.matrix

alarms-trial: venv ## break what each alarm is for, under a real Prometheus: the right one fires, and no other (ARGS="NAME ..." to choose)
	.venv/bin/python -m tests.alarms $(ARGS)

deploy-test: venv ## the tutorial and both compose files on the Docker engine of DOCKER_HOST: started, billed, killed, upgraded, saved and restored
	.venv/bin/python -m tests.deploy

chart: venv ## what the Helm chart takes from the code, from values.yaml and from deploy/: schema, page, topics, rights, alarms
	.venv/bin/python -m deploy.helm.generate

chart-test: venv ## the Helm chart, rendered for each set of values in tests/chart/values and judged (needs Go, and the network once)
	.venv/bin/python -m tests.chart.tools
	.venv/bin/pytest tests/chart/*_checks.py $(ARGS)

clickhouse-test: venv tests/downstream/.venv/.installed ## the recipe for ClickHouse in docs/downstream.md, in ClickHouse as a library (1 GB, from the network once)
	.venv/bin/pytest tests/downstream/clickhouse_checks.py $(ARGS)

lock: deploy/.venv/.installed ## deploy/*.lock, what the image installs with the hash of every file: after a change of dependencies
	deploy/.venv/bin/uv pip compile $(LOCKED) --quiet -o deploy/.venv/requirements.lock pyproject.toml
	deploy/.venv/bin/uv pip compile $(LOCKED) --quiet --extra otel -o deploy/.venv/tracing.lock pyproject.toml
	echo hatchling | deploy/.venv/bin/uv pip compile $(LOCKED) --quiet -o deploy/.venv/build.lock -
	@for name in requirements tracing build; do \
	  { echo '# Every file that the image may install for this, by its hash. Made by `make lock`, not edited by hand.'; \
	    cat deploy/.venv/$$name.lock; } >deploy/$$name.lock; \
	done

sbom: venv ## dist/sbom.cdx.json, what the image is made of: a CycloneDX list of packages, versions, licences and hashes
	@mkdir -p dist
	.venv/bin/python deploy/sbom.py deploy/requirements.lock >dist/sbom.cdx.json

venv: .venv/.installed ## the Python environment, in .venv

# For the one Python of the image, and without an index's address.
LOCKED = -c constraints.txt --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.13 --python-platform linux

#: The Python to make the environments with; chosen if it is empty.
PYTHON ?=
# The system's before others: it is the one that most machines have. Pyenv leaves commands on the PATH that fail when called: a
# Python counts only once it has run.
# ensurepip: some systems package it apart, and without it there is no pip in the new environment.
FIND_PYTHON = for python in $(or $(PYTHON),/usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11 python3.13 python3.12 python3.11 python3); do \
	  $$python -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	    && break; python=; \
	done; \
	[ -n "$$python" ] || { echo "Python 3.11, 3.12 or 3.13 with its venv module is needed" >&2; exit 1; }

.venv/.installed: pyproject.toml connectors/sdk/pyproject.toml connectors/litellm/plugin/pyproject.toml constraints.txt
	@echo "Installing the Python packages into .venv: one to two minutes ..."
	@.venv/bin/python -c pass 2>/dev/null || { $(FIND_PYTHON); $$python -m venv --clear .venv; }
	.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]' -e connectors/sdk -e connectors/litellm/plugin
	@touch $@

# The fuzzer has wheels for Linux alone: what only tests need not install it.
.venv/.fuzz: .venv/.installed
	.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	@touch $@

# A peer of the benchmark wants an older confluent-kafka than ours: it lives apart.
bench/.venv/.installed: bench/requirements.txt
	@bench/.venv/bin/python -c pass 2>/dev/null || .venv/bin/python -m venv --clear bench/.venv
	bench/.venv/bin/python -m pip install -q --disable-pip-version-check -r bench/requirements.txt
	@touch $@

# ClickHouse as a library has the size of a server.
tests/downstream/.venv/.installed: tests/downstream/constraints.txt
	@tests/downstream/.venv/bin/python -c pass 2>/dev/null || .venv/bin/python -m venv --clear tests/downstream/.venv
	tests/downstream/.venv/bin/python -m pip install -q --disable-pip-version-check -c tests/downstream/constraints.txt chdb
	@touch $@

deploy/.venv/.installed:
	@deploy/.venv/bin/python -m pip --version >/dev/null 2>&1 || { $(FIND_PYTHON); $$python -m venv --clear deploy/.venv; }
	deploy/.venv/bin/python -m pip install -q --disable-pip-version-check 'uv>=0.13,<0.14'
	@touch $@

# The mutation tool brings an ORM and a git client along: it lives apart.
tests/mutants/.venv/.installed: tests/mutants/constraints.txt
	@tests/mutants/.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m venv --clear tests/mutants/.venv
	tests/mutants/.venv/bin/python -m pip install -q --disable-pip-version-check -c tests/mutants/constraints.txt cosmic-ray
	@touch $@
