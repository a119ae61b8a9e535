# Every command a person needs; `make help` lists them. Needs python3 (3.11 to 3.13), python3-venv and make; all else
# is installed into .venv from hashed pins, once: stamp files in .venv make a second run instant.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Plain assignments: a login shell's own HOST must not decide where we listen, `make serve HOST=...` may.
HOST = $(or $(RECURVE_HOST),127.0.0.1)
PORT = $(or $(RECURVE_PORT),8000)
WORKERS = $(or $(RECURVE_WORKERS),2)
MODELS_DIR = $(or $(RECURVE_MODELS_DIR),models/published)
DEMO = sensor finance
JOBS = $(DEMO)
BASE = build/bench-before.json
ARGS =
DOCKER = docker

VENV := .venv
PY := $(VENV)/bin/python
CAN_VENV := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.PHONY: help serve test chaos loop train check image bench bench-compare million scale instructions lock clean

help: ## list these commands
	@printf 'Recurve: forecasters with memory, served.\n\n'
	awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	printf '\nVariables: HOST PORT WORKERS MODELS_DIR (serve), JOBS (train), ARGS (train, test, bench), PYTHON (set-up).\n'
	printf 'Example:   make serve PORT=9000 WORKERS=4\n'

serve: $(VENV)/.training ## train the demonstration models if there are none, then serve them on 127.0.0.1:8000
	@own=
	for labels in $$(compgen -G "$(MODELS_DIR)/*/labels.json"); do
	  name=$$(basename "$$(dirname "$$labels")")
	  [[ " $(DEMO) " == *" $$name "* ]] || own=$$name
	done
	for name in $(DEMO); do
	  if [[ -z "$$own" && ! -e "$(MODELS_DIR)/$$name/labels.json" ]]; then
	    echo "==> training $$name, quickly, to have something to serve ('make train' trains in full)"
	    $(PY) -m training train "$$name" --quick --models-dir "$(MODELS_DIR)"
	  fi
	done
	if [[ -e "$(MODELS_DIR)/sensor/labels.json" ]]; then
	  $(HELLO)
	fi
	exec $(PY) -m service --host "$(HOST)" --port "$(PORT)" --workers "$(WORKERS)" --models-dir "$(MODELS_DIR)" $(ARGS)

test: $(VENV)/.dev ## run every test, real gunicorn, Redis and PostgreSQL included (ARGS="-k words" picks some)
	@$(FIND_SERVERS)
	$(PY) -m pytest $(ARGS)

chaos: $(VENV)/.dev ## kill, cut off and fill up what the service needs, for longer (CHAOS_SECONDS=600 CHAOS_SEED=7)
	@$(FIND_SERVERS)
	export CHAOS_SECONDS=$(or $(CHAOS_SECONDS),120) CHAOS_SEED=$(CHAOS_SEED)
	$(PY) -m pytest tests/chaos --timeout=0 -rP $(ARGS)

loop: $(VENV)/.dev ## watch the whole retraining loop once, minutes: its picture and figures go to docs/
	@LOOP_DOCS=docs LOOP_MINUTE_S=1 $(PY) -m pytest tests/loop --timeout=0 -s $(ARGS)

train: $(VENV)/.training ## train the demonstration models in full (JOBS="sensor my-job.toml" picks)
	@for job in $(JOBS); do
	  echo "==> training $$job"
	  $(PY) -m training train "$$job" --models-dir "$(MODELS_DIR)" $(ARGS)
	done

check: $(VENV)/.dev ## lint and types
	@$(PY) -m ruff check .
	$(PY) -m mypy

image: ## build the container images recurve/service, recurve/slim and recurve/training
	@for target in service slim training; do
	  echo "==> recurve/$$target"
	  $(DOCKER) build --target $$target --tag recurve/$$target .
	done

bench: $(VENV)/.dev ## measure the service beside an empty Flask endpoint (needs wrk)
	@$(PY) -m benchmarks $(ARGS)

bench-compare: $(VENV)/.dev ## measure again and compare with a saved run (BASE=build/bench-before.json)
	@if [[ ! -e "$(BASE)" ]]; then
	  echo "$(BASE) is not there: keep a run of 'make bench' under that name first (cp build/bench.json $(BASE))" >&2
	  exit 1
	fi
	$(PY) -m benchmarks $(ARGS)
	$(PY) -m benchmarks.compare "$(BASE)" build/bench.json

million: $(VENV)/.dev ## measure the service over a million clients (says first what room it needs; needs wrk)
	@$(PY) -m benchmarks.million $(ARGS)

scale: $(VENV)/.dev ## curves against clients, workers, model size and replicas (six minutes; needs wrk, redis-server)
	@$(PY) -m benchmarks.scale $(ARGS)

instructions: $(VENV)/.dev ## count a predict's machine instructions, which no busy machine disturbs (needs valgrind)
	@$(PY) -m benchmarks.instructions $(ARGS)

lock: $(VENV)/.dev ## pin the requirements anew, hashes included (ARGS=--upgrade moves them)
	@for part in service training service-tensorflow granian dev; do
	  echo "==> requirements/$$part.txt"
	  $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-header --no-annotate $(ARGS) requirements/$$part.in --output-file requirements/$$part.txt
	done

clean: ## remove .venv, caches and build/; trained models and client states stay
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	echo "removed; kept: $(MODELS_DIR) (models), var (client states)"

# One stamp per set of pins: training holds the service's, dev holds training's. The lock lets two makes run at once;
# the mark says that an installation did not end, so that the next one begins from nothing.
$(VENV)/.training $(VENV)/.dev: $(VENV)/.%: requirements/%.txt
	@mkdir -p build
	exec 9>build/.set-up.lock
	flock 9 || true
	if [[ -e $(VENV)/.installing ]] || ! $(PY) -c '$(CAN_VENV)' 2>/dev/null || ! $(PY) -m pip --version &>/dev/null; then
	  rm -rf $(VENV)
	  $(FIND_PYTHON)
	  echo "==> making $(VENV) with $$("$$python" --version)"
	  "$$python" -m venv $(VENV)
	fi
	touch $(VENV)/.installing
	echo "==> installing requirements/$*.txt into $(VENV), hashes checked (TensorFlow is large: some minutes)"
	$(PY) -m pip install --disable-pip-version-check --require-hashes -r requirements/$*.txt | $(ONE_LINE)
	rm $(VENV)/.installing
	touch $@

# pip's hundreds of lines as one that moves, on a terminal; elsewhere only its last one.
ONE_LINE = awk -v tty="$$([[ -t 2 ]] && echo 1 || true)" '{last = $$0} \
  tty && /^(Collecting|Installing)/ {printf "\r\033[K    %.90s", $$0; fflush()} \
  END {printf "%s    %.90s\n", tty ? "\r\033[K" : "", last}'

# Sets $python to an interpreter that really runs (a version manager's shim may not), is in range and can make a venv.
define FIND_PYTHON
bare=
for python in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 /usr/bin/python3) ""; do
  if [[ -z "$$python" ]] || "$$python" -c '$(CAN_VENV)' &>/dev/null; then break; fi
  if "$$python" -c '$(IN_RANGE)' &>/dev/null; then bare=$$python; fi
done
if [[ -z "$$python" ]]; then
  if [[ -n "$$bare" ]]; then
    echo "$$("$$bare" --version) is here but can't make virtual environments; install what Debian splits off:"
    echo "    apt-get install $$("$$bare" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  else
    echo "No Python 3.11, 3.12 or 3.13 that runs was found ($(or $(PYTHON),python3): $$($(or $(PYTHON),python3) --version 2>&1 | head -1 || true))."
    echo "    install one:        apt-get install python3 python3-venv"
    echo "    or name your own:   make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"
  fi >&2
  exit 1
fi
endef

# Tests start Redis and PostgreSQL servers of their own, one with certificates that openssl makes. What is missing root
# gets as Debian's packages; a policy-rc.d that says 101 keeps them from starting the system's services, and goes where
# it was not before.
define FIND_SERVERS
missing=()
command -v redis-server >/dev/null || command -v valkey-server >/dev/null || missing+=(redis-server)
command -v openssl >/dev/null || missing+=(openssl)
command -v postgres >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null || missing+=(postgresql)
# promtool, which proves the Prometheus rules: where it can't be installed, the test that uses it is left out
extra=()
[[ $$(id -u) != 0 ]] || ! command -v apt-get >/dev/null || command -v promtool >/dev/null || extra+=(prometheus)
if (($${#missing[@]} + $${#extra[@]})); then
  if (($${#missing[@]})) && { [[ $$(id -u) != 0 ]] || ! command -v apt-get >/dev/null; }; then
    echo "The tests start servers of their own, and need for it: $${missing[*]}. Install it (no service need run):" >&2
    echo "    apt-get install $${missing[*]}        (elsewhere redis or valkey)" >&2
    exit 1
  fi
  echo "==> installing $${missing[*]} $${extra[*]}, for the tests"
  (
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $$policy ]]; then
      trap "rm -f $$policy" EXIT
      printf '#!/bin/sh\nexit 101\n' >$$policy
      chmod +x $$policy
    fi
    apt-get update -qq || echo "    the package lists are not up to date; going by those that are there" >&2
    get() { apt-get install -y -qq --no-install-recommends "$$@" >/dev/null </dev/null; }
    ((!$${#missing[@]})) || get "$${missing[@]}"
    ((!$${#extra[@]})) || get "$${extra[@]}" || echo "    without $${extra[*]}: its test is left out" >&2
  )
fi
endef

define HELLO
printf '%s\n' '' \
  'Once the log below says that Recurve listens, try this in another terminal (Ctrl-C here ends the service):' '' \
  "    curl http://$(HOST):$(PORT)/v1/models/sensor/clients/roof-7/predict -d '{\"observation\": [21.3, 12.0, 1013.0]}'" '' \
  'One hour of temperature, dew point and pressure goes in; what is expected an hour later comes out, such as' '' \
  '    {"model": "sensor", "version": 1, "client": "roof-7", "step": 1,' \
  '     "prediction": {"temperature": {"value": 21.28, "interval": {"level": 0.9, "lower": 19.66, "upper": 22.91}, ...' '' \
  'Send the next hour alone: the answer builds on all that came before.' ''
endef
