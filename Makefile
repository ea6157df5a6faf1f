# make demo   teach the example dog to the base that ships here, and look at it
# make test   all tests
# make check  format, lint, types, layers, dead code, fast tests: before every commit

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
RUN := runs/my_dog

.PHONY: demo test check clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[photos,dev]'
	touch $@

demo: $(READY)
	$(BIN)/python examples/teach_and_edit.py
	@echo 'one edit: $(BIN)/customize edit examples/data/my_dog_unseen/1_before.png' \
	    '"turn the dog into <my-dog>" --adapter $(RUN)/adapter.safetensors -o $(RUN)/edited.png'

# One thread for each of the two processes, and for those that tests start: two would only wait for one another.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

check: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/vulture
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not slow and not gpu"

# Results under runs/ are yours and stay.
clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
