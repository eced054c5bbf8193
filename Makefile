# make run: set up, build the example store on first use, serve. make test: set up, check, test.
# make test-extras: the tests of what needs requirements-extras.txt, which it installs.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 7860
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.requirements.stamp
EXTRAS := $(VENV)/.requirements-extras.stamp

.PHONY: run test test-extras store clean
.DEFAULT_GOAL := run

run: $(READY)
	@$(BIN)/python app.py --host $(HOST) --port $(PORT) $(ARGS)

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-extras: $(EXTRAS)
	$(BIN)/python -m pytest tests/extras $(ARGS)

store: $(READY)
	$(BIN)/python -m index build --scenes 4000 --out stores/embedded

clean:
	rm -rf $(VENV) stores build screenshots .pytest_cache .ruff_cache .hypothesis

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make run PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.txt
	@touch $@

$(EXTRAS): $(READY) requirements-extras.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.txt -r requirements-extras.txt
	@touch $@
