# The two commands: `make demo` searches for a loss on real digits, `make test` runs every test.
# Each does the set-up first where it is missing. `make help` lists the rest.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test chaos lint format bench evidence wheel lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -e 's/:.*##/\t/' | expand -t 12

install: $(STAMP) ## set up the virtual environment .venv from the pinned requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed: install it, or name it with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -c "import cv2, torch, torchvision" || { echo "The packages were installed but do not import; see the error above."; exit 1; }
	@touch $(STAMP)

demo: $(STAMP) ## search for a loss on real digits (about ten minutes), print the leaderboard, export the best
	@mkdir -p $(DEMO)
	$(BIN)/lossforge search configs/search/demo.yaml --store sqlite:///$(DEMO)/store.db
	$(BIN)/lossforge leaderboard --limit 8 --store sqlite:///$(DEMO)/store.db
	$(BIN)/lossforge export --store sqlite:///$(DEMO)/store.db --force -o $(DEMO)/best.py
	$(BIN)/lossforge report --store sqlite:///$(DEMO)/store.db -o $(DEMO)/report.png
	@echo "look at it in a browser: $(BIN)/lossforge serve --store sqlite:///$(DEMO)/store.db"

test: $(STAMP) lint ## lint, type check and run every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

CHAOS ?= 20
chaos: $(STAMP) ## test every fault CHAOS=20 times in a row; prints the runs, and the trials that were lost or doubled
	OMP_NUM_THREADS=1 $(BIN)/python tools/chaos.py --times $(CHAOS) -- -n $(WORKERS) --dist load

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tools

format: $(STAMP) ## let ruff write the code's layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## run the benchmarks: ratios against a named peer in the same run
	@for f in tests/benchmarks/bench_*.py; do echo "== $$f"; OMP_NUM_THREADS=1 $(BIN)/python $$f || exit 1; done

MINUTES ?= 100000
evidence: $(STAMP) ## complete the evidence of docs/results.md; MINUTES=60 stops after that, AFRESH=1 starts from nothing
	$(BIN)/python tools/evidence.py --minutes $(MINUTES) $(if $(AFRESH),--afresh)

wheel: $(STAMP) ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

lock: $(STAMP) ## write requirements.lock anew from .venv
	$(BIN)/python tools/lock.py

clean: ## remove what this Makefile made, the virtual environment included
	rm -rf $(VENV) $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache
