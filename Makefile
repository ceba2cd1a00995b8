# make run and make test do everything from a fresh clone; PYTHON picks the interpreter that creates the environment.
PYTHON ?= python3
# CuPy imports without a GPU, and its lines are tested on NumPy arrays; with CUDA 12: make EXTRAS=tests,plots,cuda12
EXTRAS ?= tests,plots,cuda13
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export OMP_NUM_THREADS ?= 1
export MPLBACKEND := Agg

.PHONY: run test quick lint audit mutants install clean

# 3: nothing is wrong, but Rocq is not installed, and its theorems are not checked.
run: install
	$(BIN)/python -m gpu compare
	$(BIN)/python -m proofs || test $$? -eq 3

test: install lint
	$(BIN)/python -m pytest -n 2

quick: install
	$(BIN)/python -m pytest -n 2 -m "not slow"

lint: install
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# Plants one fault after the other in a copy of the tree and writes which properties fail on it; runs the conformance
# suite on wrong and on right backends, and writes what it reports of them, and how small an error; damages the claims.
audit: install
	$(BIN)/python -m tests.audit
	HYPOTHESIS_PROFILE=ci-random $(BIN)/python -m tests.faults --times 3
	$(BIN)/python -m tests.faults --damage
	$(BIN)/python -m pytest tests/claims/test_damage.py
	$(MAKE) mutants

# Changes one expression after the other of the specification and of the torch operations; writes what no test notices.
mutants: install
	$(BIN)/python -m pip install --quiet --editable ".[$(EXTRAS),mutation]"
	PATH="$(CURDIR)/$(BIN):$$PATH" HYPOTHESIS_PROFILE=mutation $(BIN)/mutmut run --max-children 2
	$(BIN)/python -m tests.mutation

install: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip
	$(BIN)/python -m pip install --quiet --editable ".[$(EXTRAS)]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) build *.egg-info
