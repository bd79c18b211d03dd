# Everything runs in .venv in this folder; the first target that needs it creates it (about 7 GB, minutes).
PYTHON ?= python3.11
BIN := .venv/bin
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0
export DS_ACCELERATOR ?= cpu
export TOKENIZERS_PARALLELISM := false

.PHONY: setup demo test test-slow test-drills check format bench bench-peers clean

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: setup
	$(BIN)/python -m ray_jobs.demo --out demo

test: setup check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -q -n 2 --dist loadfile --timeout 600

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -q --timeout 1800 -n 2 --dist worksteal

# Hosts, links and storage that fail, on network namespaces: as root, or where namespaces are permitted.
test-drills: setup
	EARSHOT_DRILLS=1 $(BIN)/python -m pytest tests/drills -q --timeout 1800

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Prints every bench's table in its quick form; the full figures are in bench/RESULTS.md.
bench: setup
	for program in $$(ls bench/*.py | grep -v __init__); do \
		echo "== $$program"; $(BIN)/python -m bench.$$(basename $$program .py) --quick || exit 1; done

# The systems that benches compare with live apart, so that they never decide what Earshot may use.
bench-peers:
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r bench/peers.txt

clean:
	rm -rf demo runs bench/out .pytest_cache .mypy_cache .ruff_cache
