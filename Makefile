# From a bare clone: `make demo` shows it, `make test` proves it, `make check` reads it.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check format wheel bench shape clean

demo: .venv/.demo  ## an LSTM and an RNN on real text, with and without clipping
	$(BIN)/gradclip lab charlm
	$(BIN)/gradclip report

test: .venv/.test  ## the whole suite, on all cores
	$(BIN)/python -m pytest -n auto

check: .venv/.check  ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.bench  ## speed, and what watching costs: ratios measured side by side, with CSV
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/monitor.py

shape: .venv/.test  ## how much runs to clip, how the files hang together, what watching costs: numbers and their bounds
	$(BIN)/python -m benchmarks.shape

format: .venv/.check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: .venv/.test
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[torch]'
	touch $@

.venv/.test: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[torch,test]'
	touch $@ .venv/.demo

.venv/.bench: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[torch,test,bench]'
	touch $@ .venv/.demo .venv/.test

.venv/.check: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[torch,check,test]'
	touch $@ .venv/.demo .venv/.test
