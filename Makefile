# make demo | test | lint | bench | sanitize | wheel | clean. Everything is installed into .venv; nothing is needed but
# Python 3.11 or later, a C compiler and the Python package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What `make test` installs beside pytest. EXTRAS=test,torch compares with PyTorch too.
EXTRAS ?= test
# In as many processes as there are CPUs; the tests of packaging stay in one.
PYTEST_ARGUMENTS ?= -n auto --maxprocesses 8 --dist loadgroup
SOURCES := setup.py pyproject.toml $(wildcard csrc/* fastnn/native/*.pyx fastnn/native/*.pxd)

.PHONY: demo test lint bench sanitize wheel clean

demo: $(VENV)/installed-train
	$(BIN)/python -m fastnn demo

test: $(VENV)/installed-$(EXTRAS)
	$(BIN)/python -m pytest $(PYTEST_ARGUMENTS)

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint fastnn/native  # which calls pycodestyle by name
	$(BIN)/clang-format --dry-run --Werror csrc/*.c csrc/*.h tests/*.c benchmarks/*.c
	$(BIN)/mypy

bench: $(VENV)/installed-bench
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds

# The tests on kernels built with AddressSanitizer and UndefinedBehaviorSanitizer: not those against torch, nor of
# packaging, which builds kernels of its own, nor of resident memory, which AddressSanitizer holds back. Leaks are not
# looked for, as Python itself frees nothing when it ends; tests/test_memory.py watches the memory of many steps.
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=undefined
sanitize: $(VENV)/installed-test,build
	rm -rf build/sanitize && mkdir -p build/sanitize
	cp -r setup.py pyproject.toml README.md csrc docs fastnn tests build/sanitize
	rm -f build/sanitize/fastnn/native/*.so
	cd build/sanitize && CFLAGS="-g $(SANITIZERS)" LDFLAGS="$(SANITIZERS)" \
	    $(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace
	cd build/sanitize && PYTHONPATH=. ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    $(CURDIR)/$(BIN)/python -m pytest tests --ignore tests/test_packaging.py -k "not torch and not resident" --capture=sys $(PYTEST_ARGUMENTS)

wheel: $(VENV)/bin/python
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf build dist *.egg-info fastnn/native/*.so $(VENV)

# python3 -m venv needs Debian's python3-venv; virtualenv does not.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || (rm -rf $(VENV) && $(PYTHON) -m pip install --user virtualenv && $(PYTHON) -m virtualenv $(VENV))

# An editable installation: the extensions are built beside their sources. Again whenever one of these has changed.
$(VENV)/installed-%: $(VENV)/bin/python $(SOURCES)
	@echo "building fastnn into $(VENV): two to four minutes on two cores"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable ".[$*]"
	touch $@
