# Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: demo test check bench bench-speed docs mutants clean

demo: $(READY)
	$(PY) examples/demo.py

test: $(READY)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist worksteal --durations 10

check: $(READY)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(READY)
	$(VENV)/bin/pristina bench smoke --out runs/smoke

# Hours; goes on after an interruption. PICTURES is what benchmarks/validation.py writes.
PICTURES := runs/faces/validation
bench-speed: $(READY)
	$(PY) -m benchmarks.calls --pictures $(PICTURES)

docs: $(READY)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	OMP_NUM_THREADS=1 $(PY) -m sphinx -W --keep-going -b html docs docs/_build/html

mutants: $(READY)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[mutants]'
	$(PY) benchmarks/mutants.py

$(READY): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist
