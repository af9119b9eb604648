# From a bare clone: `make demo` shows it, `make test` proves it, `make check` reads it, `make sanitize` looks for stray memory.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test sanitize check format wheel bench shape clean

demo: .venv/.demo  ## an LSTM and an RNN on real text, with and without clipping
	$(BIN)/gradclip lab charlm
	$(BIN)/gradclip report

test: .venv/.test  ## the whole suite, on all cores
	$(BIN)/python -m pytest -n auto

check: .venv/.check  ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# In a copy of the package outside the source tree. The sanitizers must be in the process before Python is, hence LD_PRELOAD;
# with malloc in place of Python's own allocator they see the ends of small arrays; and what PyTorch and Python never free is
# no leak of the kernel's. (pytest leaves the file descriptors alone, or a report would be lost with it.)
SANITIZER_CC ?= gcc
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
sanitize: .venv/.test  ## the compiled kernel under AddressSanitizer and UndefinedBehaviorSanitizer: its tests, and a fuzzer
	@set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	CC=$(SANITIZER_CC) CFLAGS="$(SANITIZERS)" LDFLAGS="$(SANITIZERS)" \
		$(BIN)/python setup.py -q build --build-base="$$scratch" --build-lib="$$scratch/lib"; \
	grep -q __asan_init "$$scratch"/lib/gradclip/backends/_kernel.*; \
	export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1; \
	export PYTHONMALLOC=malloc PYTHONPATH="$$scratch/lib" GRADCLIP_FUZZ_SECONDS=1; \
	export LD_PRELOAD="$$($(SANITIZER_CC) -print-file-name=libasan.so) $$($(SANITIZER_CC) -print-file-name=libubsan.so)"; \
	$(BIN)/python -c "from gradclip.backends import _kernel as k; assert k.__file__.startswith('$$scratch')"; \
	$(BIN)/python -m pytest -q -p no:cacheprovider --capture=sys \
		tests/backends/test_kernel.py tests/backends/test_arguments.py tests/backends/test_fuzz.py

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
