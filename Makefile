# Everything a fresh clone needs: `make demo` and `make test`. Both make the virtual environment first.
PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-long test-compose test-custody test-attestation test-kerberos test-postgres check setup native lock clean bench chaos fuzz hostile rotation

demo: setup
	$(BIN)/bus demo

# Three groups (tests/conftest.py) at a time on two cores: most of them wait for brokers, and the checks run beside them.
test: setup
	@{ $(MAKE) --no-print-directory check >.check.log 2>&1; echo $$? >.check.code; } & \
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 20; tests=$$?; wait; cat .check.log; \
	test "$$(cat .check.code)" = 0 && exit $$tests

# What takes a minute or more each: longer forms of what `make test` tries, some 12 minutes.
test-long: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --long -m long

# docker-compose.yml on a Docker daemon of its own where none answers; skipped with its reason where Docker cannot be had.
test-compose: setup
	$(BIN)/python -m pytest tests/compose

# Quotes by tpm2-tools and a software TPM (swtpm); Debian packages are installed where root may, else the test says what it lacks.
test-attestation: setup
	@{ command -v swtpm && command -v swtpm_localca && command -v tpm2_quote; } >/dev/null \
	  || test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends swtpm swtpm-tools tpm2-tools; }
	$(BIN)/python -m pytest tests/attestation tests/integration/test_swtpm.py

# Agents with tickets of a real KDC (MIT Kerberos) and a Kafka client built with GSSAPI; a minute or two to build it, some five to run.
# Packages are installed where root may; what is missing is said, and the tests are skipped.
# MORE="--long -m long": over a hundred tickets, some 35 minutes.
KERBEROS := krb5-kdc krb5-admin-server krb5-user libsasl2-modules-gssapi-mit gcc g++ make pkg-config \
  libsasl2-dev libssl-dev zlib1g-dev libzstd-dev libcurl4-openssl-dev
test-kerberos: setup
	@if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  dpkg -s $(KERBEROS) >/dev/null 2>&1 || { apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(KERBEROS) >/dev/null; }; \
	  command -v npm >/dev/null || apt-get install -y -qq --no-install-recommends npm >/dev/null; \
	  command -v java >/dev/null || apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless >/dev/null; \
	else echo "not root, or no apt-get: what is missing is not installed ($(KERBEROS), npm, Java 17)"; fi
	@$(BIN)/python -m tests.kerberos.build_client
	KERBEROS=1 $(BIN)/python -m pytest tests/kerberos $(MORE)

# The authority's state and the ledger on PostgreSQL, by a throw-away cluster; the Debian package is installed where root may, else those
# tests are skipped with their reason.
test-postgres: setup
	@$(BIN)/python -m pip install --quiet -e '.[postgres]'
	@{ command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 \
	  || test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql; }
	$(BIN)/python -m pytest --long tests/replicas

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The key providers' contract against what can be had here: SoftHSM2, moto's server for AWS KMS, Vault built from Go modules.
# Some six minutes, three of them an outage, and at first some more to build that Vault.
# Each part that is missing is skipped with its reason.
test-custody: setup
	@$(BIN)/python -m pip install --quiet -e '.[custody-tests]'
	@if command -v softhsm2-util >/dev/null; then :; \
	  elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get install --yes --quiet softhsm2 >/dev/null; \
	  else echo "no SoftHSM2, and not root to install it: its tests are skipped (apt-get install softhsm2)"; fi
	@$(BIN)/python -m tests.custody.build_vault
	CUSTODY=1 $(BIN)/python -m pytest tests/custody

bench: setup
	$(BIN)/bus bench

# Random faults under load, counted record by record: some 20 minutes. CHAOS_SEED=N repeats a run.
ROUNDS ?= 100
chaos: setup
	$(BIN)/python -m tests.chaos --rounds $(ROUNDS)

# A million inputs to every parser of bytes from outside; guided by coverage, too, where atheris is installed (`pip install atheris`).
INPUTS ?= 1000000
fuzz: setup
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS)

# Raw clients with an agent's own credentials beside honest agents: some 12 minutes.
hostile: setup
	$(BIN)/python -m tests.hostile

# Broker tokens, or passwords (MECHANISM=SCRAM-SHA-512), replaced every two seconds under load: some 4 minutes; the long form is
# `make rotation MINUTES=30`.
MECHANISM ?= OAUTHBEARER
ROTATIONS ?= 100
MINUTES ?= 0
rotation: setup
	$(BIN)/python -m tests.rotation --mechanism $(MECHANISM) --rotations $(ROTATIONS) --minutes $(MINUTES)

setup: $(VENV)/ready
	@$(BIN)/bus stack fetch

NATIVE := native/Cargo.toml native/Cargo.lock native/pyproject.toml $(wildcard native/src/*.rs)

# The compiler makes what `native` needs while pip unpacks; Python compiles what is imported, when it is.
$(VENV)/ready: pyproject.toml requirements.lock $(NATIVE)
	@echo "setting up $(VENV) with $$($(PYTHON) --version) (about 350 MB, once)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
	  || { echo "Python 3.11 to 3.14 is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@PYO3_PYTHON="$(CURDIR)/$(BIN)/python" cargo build --quiet --release --locked --manifest-path native/Cargo.toml >/dev/null 2>&1 & \
	$(BIN)/python -m pip install --quiet --no-compile --require-hashes -r requirements.lock; made=$$?; wait; exit $$made
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@$(MAKE) --no-print-directory native
	@touch $@

# The enforcer's compiled steps (docs/adr/0005). Without a Rust compiler plain Python takes all steps; on CI they must build.
native:
	@if ! command -v cargo >/dev/null; then \
	  echo "no Rust compiler found: plain Python takes every step of the enforcer, at about half the speed"; \
	elif ! PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation ./native; then \
	  echo "the compiled steps did not build: plain Python takes every step of the enforcer, at about half the speed" >&2; \
	  test -z "$$CI"; \
	fi

# Renew the lock file; needs uv. One file holds for Python 3.11 to 3.14.
lock:
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate \
	  --extra stack --extra dev --extra plot --output-file requirements.lock pyproject.toml requirements.build

clean:
	rm -rf $(VENV) .sealbus
