# Two commands for a fresh Linux machine with Python 3.10 or newer:
#   make demo    make test
# `make help` lists the rest. Every target may be run again at any time.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# ---- what may be overridden: make demo PYTHON=python3.12 ------------------
# Interpreter that .venv is made with; empty takes the first suitable one.
PYTHON ?=
# Further arguments of every pip call, e.g. PIP_ARGS="--no-cache-dir".
PIP_ARGS ?=
# Further arguments of the pip call that installs torch and torchaudio, which
# then comes first. For the small CPU-only install give PyTorch's own
# documented CPU wheel index: TORCH_ARGS="--index-url <its address>".
TORCH_ARGS ?=
# The versions that are installed; empty takes the newest that setup.cfg allows.
LOCK ?= requirements/lock.txt
# Overrides of hparams/demo.yaml, e.g. DEMO_ARGS="--number_of_epochs=2".
DEMO_ARGS ?=
# Further arguments of pytest, e.g. PYTEST_ARGS="tests/data -x".
PYTEST_ARGS ?=
# Processes that share the tests: make test JOBS=0 runs them in one.
JOBS ?= 2

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
RESULTS := results
# A file's tests stay together, so that its models are made once.
PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(PY) -m pytest
SHARED := -n $(JOBS) --dist loadfile
# An editable install remembers where the checkout lies: stamps carry that
# place, so that a checkout moved together with its .venv installs again.
HERE := $(shell pwd | cksum | cut -d' ' -f1)
HAS_PYTHON := $(VENV)/.python-$(HERE)
HAS_DEMO := $(VENV)/.demo-$(HERE)
HAS_DEV := $(VENV)/.dev-$(HERE)

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
PIP_WORKS := $(PIP) install --help >/dev/null 2>&1

.PHONY: help demo test test-slow coverage soak lint format size docs \
    upstream install lock canary oldest clean distclean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) \
	    | sed -E 's/^([a-z-]+):.*## /make \1|/' \
	    | while IFS='|' read -r name text; do
	        printf '  %-16s %s\n' "$$name" "$$text"
	    done
	echo "Options: PYTHON PIP_ARGS TORCH_ARGS DEMO_ARGS PYTEST_ARGS (see the"
	echo "head of the Makefile, also for the small CPU-only install)."

demo: $(HAS_DEMO) ## install, build the demo corpus, train, evaluate, report
	@root="$$PWD"
	"$(PY)" -m speechbrain_ee demo-corpus "$(RESULTS)/demo-corpus"
	cd recipes/LibriSpeech/EarlyExit
	"$(abspath $(PY))" train.py hparams/demo.yaml \
	    --data_folder="$$root/$(RESULTS)/demo-corpus" \
	    --output_folder="$$root/$(RESULTS)/demo" $(DEMO_ARGS)
	echo
	echo "The figure and the HTML report are in $(RESULTS)/demo/report:"
	find "$$root/$(RESULTS)/demo/report" -maxdepth 1 -type f | sort
	echo
	echo "The model is in $(RESULTS)/demo/model. Hear it stop early:"
	echo "  $(VENV)/bin/speechbrain-ee transcribe --model $(RESULTS)/demo/model" \
	    "$(RESULTS)/demo-corpus/test-clean"

test: lint ## install if needed, lint, run the tests and doctests
	@$(PYTEST) --timeout=600 $(SHARED) $(PYTEST_ARGS)

test-slow: $(HAS_DEV) ## run the tests that take minutes
	@$(PYTEST) --timeout=7200 -m slow $(PYTEST_ARGS)

coverage: $(HAS_DEV) ## run the tests; 90 % of the lines must have run
	@$(PYTEST) --timeout=600 $(SHARED) --cov=speechbrain_ee \
	    --cov-report=term --cov-fail-under=90 $(PYTEST_ARGS)

soak: $(HAS_DEV) ## kill trainings, sweeps and exports; attack readers (an hour)
	@export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
	for system in demo demo_aed; do
	    $(PY) -m tests.soak.training --system $$system --kills 50 \
	        --out benchmarks/results/soak/$$system.json
	done
	$(PY) -m tests.soak.sweeps --kills 50 \
	    --out benchmarks/results/soak/sweeps.json
	$(PY) -m tests.soak.replacing --kills 50 \
	    --out benchmarks/results/soak/replacing.json
	$(PY) -m tests.soak.hostile --minutes 10 \
	    --out benchmarks/results/soak/hostile.json

lint: $(HAS_DEV) ## ruff (check and format), yamllint, codespell
	@status=0
	$(PY) -m ruff check . || status=1
	$(PY) -m ruff format --check . || status=1
	$(PY) -m yamllint hparams upstream .pre-commit-config.yaml .yamllint.yaml || status=1
	$(PY) -m codespell_lib || status=1
	exit $$status

format: $(HAS_DEV) ## let ruff fix and format the code
	@$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

size: $(HAS_PYTHON) ## files, lines and lines of code of each part
	@$(PY) benchmarks/size.py speechbrain_ee speechbrain_ee/*/ tests benchmarks

docs: $(HAS_DEV) ## the reference, from the docstrings, in build/api
	@$(PY) docs/make_api.py build/api
	echo "The reference is in build/api/README.md; the guides are in docs/."

upstream: $(HAS_DEV) ## write the contribution to SpeechBrain, and check it
	@rm -rf "$(RESULTS)/upstream"
	$(PY) -m upstream "$(RESULTS)/upstream" --check

install: $(HAS_DEV) ## make .venv with everything that demo and test need

lock: $(HAS_PYTHON) ## renew requirements/lock.txt with the newest versions
	@$(PY) requirements/environments.py lock

canary: $(HAS_PYTHON) ## smoke test with the newest versions, without the lock
	@$(PY) requirements/environments.py canary

oldest: $(HAS_PYTHON) ## smoke test with the lower bounds of setup.cfg
	@$(PY) requirements/environments.py oldest

clean: ## remove caches, builds and the demo's results
	@rm -rf build dist ./*.egg-info .pytest_cache .ruff_cache .hypothesis \
	    .coverage .coverage.* coverage.xml "$(RESULTS)/demo" "$(RESULTS)/demo-corpus"
	find . -path "./$(VENV)" -prune -o -name __pycache__ -type d -print0 \
	    | xargs -0 rm -rf

distclean: clean ## the same, and remove .venv
	@rm -rf "$(VENV)"

# ---- the environment ------------------------------------------------------
# A working .venv is taken as it is, an interrupted one is completed, and only
# one whose interpreter does not start any more is made anew.
$(HAS_PYTHON):
	@if $(PY) -c '' 2>/dev/null; then
	    if ! $(PY) -c '$(NEW_ENOUGH)'; then
	        echo "error: $(VENV) holds $$($(PY) --version), but 3.10 or" \
	            "newer is needed. Remove it with 'make distclean' and run" \
	            "this again." >&2
	        exit 2
	    fi
	    $(PIP_WORKS) || $(PY) -m ensurepip --upgrade >/dev/null 2>&1 || true
	    if $(PIP_WORKS); then
	        touch $@
	        exit 0
	    fi
	fi
	found=
	tried=
	for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 \
	        python3.10 python); do
	    if "$$name" -c '$(NEW_ENOUGH)' 2>/dev/null; then
	        found="$$name"
	        break
	    fi
	    seen="$$("$$name" --version 2>&1 | head -n 1 || true)"
	    tried="$$tried$${tried:+; }$$name: $$seen"
	done
	if [ -z "$$found" ]; then
	    echo "error: Python 3.10 or newer is needed ($$tried). Install one" \
	        "and name it: make $(or $(MAKECMDGOALS),demo)" \
	        "PYTHON=/path/to/python3.12" >&2
	    exit 2
	fi
	if ! "$$found" -c 'import venv, ensurepip' 2>/dev/null; then
	    echo "error: $$found cannot make a virtual environment, its modules" \
	        "venv and ensurepip are missing. Install them (Debian, Ubuntu:" \
	        "the package python3-venv) or name another interpreter:" \
	        "make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.12" >&2
	    exit 2
	fi
	echo "Making $(VENV) with $$("$$found" --version)"
	"$$found" -m venv --clear $(VENV)
	touch $@

# pip's output is in $(VENV)/install.log; when it fails, its reason is shown.
install = PIP_ARGS='$(PIP_ARGS)' TORCH_ARGS='$(TORCH_ARGS)' \
    GOAL='$(or $(firstword $(MAKECMDGOALS)),install)' \
    requirements/install.sh '$(VENV)' '$(1)' '$(LOCK)'

$(HAS_DEMO): setup.cfg pyproject.toml $(LOCK) | $(HAS_PYTHON)
	@$(call install,demo)
	touch $@

$(HAS_DEV): setup.cfg pyproject.toml $(LOCK) | $(HAS_PYTHON)
	@$(call install,demo$(comma)dev)
	touch $(HAS_DEMO) $@

comma := ,
