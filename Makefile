# The commands of the project. Each does its own set-up: Rust, python3 with pip, gcc and make are all it needs.
# What is fetched lies under .cache/ and is fetched once; versions and hashes are pinned.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# One shell per recipe, so that what a line exports is there for the next.
.ONESHELL:

# More flags for the server: make run ARGS="--http 0.0.0.0:8000"
ARGS ?=

conformance := server/app/tests/python
test_packages := .ci/get-python-packages $(conformance)/requirements.txt
exporter_packages := .ci/get-python-packages $(conformance)/exporters.txt
model_packages := .ci/get-python-packages models/requirements.txt
# -s keeps the user's own packages out, the variable the plug-ins that pytest would load from the system's.
python := PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTHONDONTWRITEBYTECODE=1 python3 -s

.PHONY: help
help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

.PHONY: run
run: ## build the server and serve the example models (more flags: make run ARGS="...")
	@library=$$(.ci/get-onnxruntime) && export ORT_DYLIB_PATH="$$library" || true
	exec cargo run --release --locked --package gristmill -- serve --repository models $(ARGS)

.PHONY: check
check: ## load and prove every example model without serving
	@library=$$(.ci/get-onnxruntime) && export ORT_DYLIB_PATH="$$library" || true
	exec cargo run --release --locked --package gristmill -- check --repository models $(ARGS)

.PHONY: test
test: test-rust test-conformance ## run every test

.PHONY: test-rust
test-rust: ## run the tests written in Rust
	@library=$$(.ci/get-onnxruntime)
	export ORT_DYLIB_PATH="$$library" GRISTMILL_REQUIRE_ONNXRUNTIME=1
	cargo test --workspace --locked

.PHONY: test-conformance
test-conformance: ## compare a running server with Python's onnxruntime, through real clients of its dialects
	@library=$$(.ci/get-onnxruntime)
	packages=$$($(test_packages))
	exporters=$$($(exporter_packages))
	stubs=$$(.ci/get-published-stubs "$$packages")
	# The program that the tests written in Rust have built: another build would compile most of the tree again.
	cargo test --workspace --locked --no-run
	export GRISTMILL_BIN="$${GRISTMILL_BIN:-$${CARGO_TARGET_DIR:-$(CURDIR)/target}/debug/gristmill}"
	# The stubs first: a package carries old ones of the same names.
	export ORT_DYLIB_PATH="$$library" PYTHONPATH="$$stubs:$$packages:$$exporters"
	$(python) -m pytest $(conformance) $(ARGS)

.PHONY: test-openapi
test-openapi: ## send what schemathesis makes of /openapi.json to a running server: no answer may be a 5xx
	@exec $(MAKE) --no-print-directory test-conformance ARGS="-m schemathesis $(ARGS)"

.PHONY: lint
lint: ## check formatting and lints
	cargo fmt --all --check
	cargo ci-lint

.PHONY: models
models: ## train the example models again
	@packages=$$($(model_packages))
	PYTHONPATH="$$packages" $(python) models/make_models.py

.PHONY: models-check
models-check: ## train the example models elsewhere and compare with the committed ones
	@packages=$$($(model_packages))
	PYTHONPATH="$$packages" $(python) models/make_models.py --check

.PHONY: requirements
requirements: ## resolve the pinned Python packages again, after a change of a requirements.in
	@for directory in models $(conformance); do
	    (cd $$directory && uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	        requirements.in --output-file requirements.txt)
	done
	cd $(conformance) && uv pip compile --no-deps --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-annotate exporters.in --output-file exporters.txt

.PHONY: clean-cache
clean-cache: ## remove what was fetched (ONNX Runtime, Python packages, load tools)
	rm -rf .cache
