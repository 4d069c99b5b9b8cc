# Everything a clone needs: `make demo` and `make test` set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-quick node-tools check fmt docs bench crash clean
.DELETE_ON_ERROR:

$(STAMP): pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dicode-mcp needs Python 3.11 or newer; say: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV); the first time this takes a minute or two."
	"$(PYTHON)" -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch "$@"

demo: $(STAMP)
	@"$(BIN)/dicode" demo

# Without them (no network) the tests that need them are skipped; in CI that is a failure.
test: $(STAMP)
	@$(MAKE) --no-print-directory node-tools || [ "$$CI" != true ]
	"$(BIN)/python" -m pytest -n 2 --dist worksteal

# The MCP conformance suite and the MCP Inspector, for tests/conformance.
node-tools: $(STAMP)
	@"$(BIN)/python" tests/conformance/node_tools.py

test-quick: $(STAMP)
	"$(BIN)/python" -m pytest -n 2 --dist worksteal -m "not slow"

check: $(STAMP)
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/pyright"
	"$(BIN)/lint-imports"
	"$(BIN)/python" -m pytest -q tests/docs -m "not slow"

fmt: $(STAMP)
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

docs: $(STAMP)
	"$(BIN)/python" docs/generate.py

bench: $(STAMP)
	"$(BIN)/python" -m bench

crash: $(STAMP)
	"$(BIN)/python" tests/e2e/crash_loop.py --cycles 50

clean:
	rm -rf "$(VENV)" dist build .pytest_cache .ruff_cache tests/conformance/node_modules
