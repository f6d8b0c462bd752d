# Every target runs in .venv, which the first of them makes; `make PYTHON=python3.12 test` takes another Python.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help install-light check demo test tests test-browser bench lint style types fetch clean

help:
	@echo "make demo    the whole story on real speech, into runs/demo"
	@echo "make install-light  what scores, imports and reports, without torch: 1 minute, into .venv"
	@echo "make test    lint and all tests, a process a core; those that need the encoder are skipped without it"
	@echo "make test-browser  installs a Chromium if there is none, then the tests of the local pages in it"
	@echo "make check   the whole of tgsr check on the miniatures, some minutes each; make test runs it shortened"
	@echo "make bench   speed and memory, against the best other ways and the usual one; some twenty minutes"
	@echo "make lint    ruff and mypy"
	@echo "make fetch   Whisper base, SmolLM2-135M, MiniLM and a voice encoder, downloaded once and checked each time"
	@echo "make clean   removes .venv and the tools' caches; runs and fetched weights stay"

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# No stamp: the next target that needs everything installs it.
install-light:
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -r requirements-light.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .

demo: fetch
	$(BIN)/tgsr demo --out runs/demo

# A fetch that fails does not stop the tests: it says what to do, and they say what they skip.
test: style
	-@$(MAKE) --no-print-directory fetch
	@$(MAKE) --no-print-directory --jobs 2 types tests

# Rewriting each assert, so that it shows its values, takes each process long; a failed test by itself shows them.
tests: $(INSTALLED)
	$(BIN)/python -m pytest --assert plain --showlocals --numprocesses logical --maxprocesses 4 --dist worksteal

# A browser that is there is taken; playwright's own comes from the network, Debian's with: apt install chromium.
test-browser: $(INSTALLED)
	command -v chromium chromium-browser google-chrome >/dev/null || test -n "$$TGSR_CHROMIUM" \
		|| $(BIN)/python -m playwright install chromium \
		|| { echo "no browser: apt install chromium, or name one in TGSR_CHROMIUM" >&2; exit 1; }
	$(BIN)/python -m pytest tests/browser

check: fetch
	$(BIN)/tgsr check --model mini --out runs/check-mini
	$(BIN)/tgsr check --model mini-en --out runs/check-mini-en

bench: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed.py

lint: style types

style: $(INSTALLED)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

types: $(INSTALLED)
	$(BIN)/python -m mypy

# No stamp: the kept file is checked against its SHA-256, which takes a second.
fetch: $(INSTALLED)
	$(BIN)/tgsr fetch

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
