# The words people type. `make test` is everything; .ci/run calls it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Tools the checks need, out of the way of the machine's own. Point it at a directory that outlives
# the clone to keep them between runs.
TOOLS ?= $(CURDIR)/target/outer
export TOOLS

# What follows each other here would be in each other's way.
.NOTPARALLEL:

# A service manager's and a tracer's variables, which the program reads, are none of the tests'.
unexport RUNTIME_DIRECTORY CREDENTIALS_DIRECTORY NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID JOURNAL_STREAM
unexport LISTEN_FDS LISTEN_PID LISTEN_FDNAMES $(filter OTEL_% WS_KEEPALIVE__%,$(.VARIABLES))

.PHONY: help
help: ## Lists these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: test
test: lint docs deny unit bench-quick outer ## Everything: lint, docs, deny, all test rings, a quick benchmark

.PHONY: lint
lint: ## rustfmt and clippy, warnings denied
	scripts/install-lints
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --test outer -- -D warnings

.PHONY: docs
docs: ## The library's documentation, warnings denied
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --lib

# No advisory check: the database is fetched from a host a build machine need not reach, and an
# audit that did not happen must not look like a clean one.
.PHONY: deny
deny: ## Licences, banned crates and sources of everything in Cargo.lock
	scripts/install-cargo-deny
	cargo fetch --locked
	PATH="$(TOOLS)/bin:$$PATH" cargo deny --offline check licenses bans sources

.PHONY: unit
unit: ## The test rings that need nothing but Rust
	cargo test --locked

.PHONY: outer
outer: ## The built binary against real peers; installs them by name into $$TOOLS
	scripts/install-peers
	scripts/install-packagers
	RUST_TEST_THREADS=16 cargo test --locked --test outer

# What is built, and so what is packaged: the tests take the dev profile's binary, for it is there.
PROFILE ?= release

.PHONY: packages
packages: ## The deb and the rpm, in target/packages (PROFILE=release)
	scripts/install-packagers makers
	cargo build --locked --profile $(PROFILE)
	scripts/make-packages $(PROFILE)

.PHONY: static
static: ## The program without libraries, against musl: target/packages/ws-keepalive-static
	scripts/build-static $(PROFILE)

# Seconds per target.
FUZZ_SECONDS ?= 60

# On stable: cargo-fuzz asks for unstable flags of rustc, and for nothing else of nightly. No
# sanitizer, for what is fuzzed has no unsafe code, and without one it runs twice as often.
.PHONY: fuzz
fuzz: ## Each fuzz target for $$FUZZ_SECONDS; what it finds is in fuzz/artifacts
	scripts/install-cargo-fuzz
	export PATH="$(TOOLS)/bin:$$PATH" RUSTC_BOOTSTRAP=1; \
	targets=$$(cargo fuzz list); \
	for target in $$targets; do \
	  mkdir -p "fuzz/corpus/$$target"; \
	  cargo fuzz run --sanitizer none "$$target" "fuzz/corpus/$$target" "fuzz/seeds/$$target" -- \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1; \
	done

.PHONY: bench
bench: ## The benchmark at its full size: 15,000 targets
	cargo bench --locked --bench hold

# Its numbers mean nothing, so it runs what the tests have built; the release build is `make bench`.
.PHONY: bench-quick
bench-quick: ## A small run that keeps the benchmark alive
	cargo bench --locked --profile dev --bench hold -- --quick
