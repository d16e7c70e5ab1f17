# make demo    sets up .venv, runs the whole pipeline (dvc repro), prints the results
# make test    sets up .venv, runs the fast tests
# make check   lint, formatting, types, import rules, the fast and the slow tests
# make test-slow  the tests that continuous integration does not need on every change
# make smoke   the whole pipeline at its smallest (presets/smoke.yaml), in a temporary copy
# make smoke-prefect  the same, then once more as a scheduled Prefect run
# make weights SmolLM2-135M-Instruct, a real model of 98 MB, into data/weights
# make mlflow  MLflow's pages about the runs so far, at http://127.0.0.1:5000; MLFLOW_PORT=5001: at another port
# make TORCH=cpu|cuda|skip ...  chooses the build of torch; .ci/install says how it is chosen otherwise
# make prefect  a Prefect server at http://127.0.0.1:4200, a worker and the deployments of prefect.yaml, until Ctrl-C
# make prefect-demo  deploys the pipeline and runs it once; starts a server of its own when none is running
# make clean   removes caches, and the journals and checkpoints of unfinished stages, which then start anew; keeps .venv,
#              the data, the runs, the answers of servers and what worktrees have left; not while a stage runs

SHELL := /bin/bash
VENV := .venv
PREFECT_PORT ?= 4200
MLFLOW_PORT ?= 5000
# The first Python on PATH that is 3.11 or newer; override with make PYTHON=/path/to/python3.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)

# The tests of a file share servers and models, so they stay in one process.
PYTEST := OMP_NUM_THREADS=1 pytest -q -n 2 --dist loadfile --no-loadscope-reorder

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := False
export HF_HUB_DISABLE_TELEMETRY := 1
export OMP_WAIT_POLICY := PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: again repository demo test test-slow check lint smoke smoke-prefect weights mlflow prefect prefect-demo clean venv
.DEFAULT_GOAL := demo

venv: $(VENV)/.installed

# TORCH=cpu|cuda|skip chooses the build of torch (.ci/install says how), and installs again.
$(VENV)/.installed: pyproject.toml constraints.txt constraints-compute.txt $(if $(TORCH),again)
	@test -n "$(PYTHON)" || { echo "swirl needs Python 3.11 or newer and found none on PATH; try: make PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"swirl needs Python 3.11 or newer; $(PYTHON) is {v[0]}.{v[1]}. Try: make PYTHON=/path/to/python3.11")'
	@test -x $(VENV)/bin/python || "$(PYTHON)" -m venv $(if $(filter skip,$(TORCH)),--system-site-packages) $(VENV) || { echo "could not make $(VENV); on Debian and Ubuntu install python3-venv"; exit 1; }
	@echo "Installing into $(VENV); the first time takes a few minutes."
	@.ci/install $(VENV)/bin/python "$(TORCH)"
	@touch $@

again:

# DVC needs a git repository, which a ZIP of the project is not.
repository:
	@test -e .git || { echo "this folder is no git repository, which DVC needs; say: git init && git add -A && git commit -m swirl"; exit 1; }

demo: repository venv
	dvc repro
	swirl report --text
	@echo
	@echo "Runs, curves and models:  make mlflow            then open http://127.0.0.1:5000"
	@echo "The pipeline as a flow:   source $(VENV)/bin/activate && python flows/pipeline.py"
	@echo "Flow runs, schedules:     make prefect           then open http://127.0.0.1:4200"
	@echo "Plots:                    reports/index.html, or: source $(VENV)/bin/activate && dvc plots show"

test: repository venv
	$(PYTEST) -m "not slow and not rare"

test-slow: repository venv
	$(PYTEST) -m rare

lint: repository venv
	ruff check .
	ruff format --check .
	mypy
	lint-imports

check: lint
	$(PYTEST) -m "not rare"

smoke: repository venv
	python -m tests.smoke

smoke-prefect: repository venv
	python -m tests.smoke --schedule

weights: venv
	python .ci/weights.py

mlflow: venv
	@python -c 'import socket; socket.create_server(("127.0.0.1", $(MLFLOW_PORT)))' 2>/dev/null || { echo "port $(MLFLOW_PORT) is taken; choose another: make mlflow MLFLOW_PORT=$$(($(MLFLOW_PORT) + 1))"; exit 1; }
	mlflow ui --host 127.0.0.1 --port $(MLFLOW_PORT) --backend-store-uri "sqlite:///$(CURDIR)/mlflow.db"

prefect: repository venv
	python flows/server.py up --port $(PREFECT_PORT)

prefect-demo: repository venv
	python flows/server.py demo --port $(PREFECT_PORT)

# A stage that runs holds its lock.
define NO_STAGE_RUNS
import fcntl, glob, sys
for path in glob.glob(".swirl/locks/*"):
    try:
        fcntl.flock(open(path), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("stage " + path.rpartition("/")[2] + " is running; wait for it or stop it")
endef
export NO_STAGE_RUNS
KEPT := tracking answers locks worktrees hub

clean:
	@"$(PYTHON)" -c "$$NO_STAGE_RUNS"
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@if [ -d .swirl ]; then find .swirl -mindepth 1 -maxdepth 1 $(KEPT:%=! -name %) -exec rm -rf {} +; fi
	find src flows tests -name __pycache__ -type d -prune -exec rm -rf {} +
