# Concordat. `make` alone lists the targets. Needed: Rust (rust-version in Cargo.toml), Go and a C compiler; whatever
# is missing is one sentence. CometBFT, nats-server and cargo-deny are built once and cached by version
# (tests/servers/versions.env, ~/.cache/concordat/servers).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ENSURE := tests/servers/ensure.sh
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: demo test lint laws bench bench-check servers fuzz web clean help

demo: servers ## a city of four agencies on this machine, and its tour (DEMO=keep leaves it running)
	@$(ENSURE) --toolchain
	cargo build --locked --release -p concordat-cli
	@export CONCORDAT_SERVERS="$$($(ENSURE) --dir)"; DEMO="$(DEMO)" $(TARGET)/release/concordat demo run

# --all-targets builds the binaries that the end-to-end tests start, with the tests' own features: one build, not two.
test: servers ## every test, on the real servers, and the chart's
	@$(ENSURE) --toolchain
	tests/helm/check.sh
	cargo build --locked --workspace --all-targets
	@export CONCORDAT_SERVERS="$$($(ENSURE) --dir)"; cargo test --locked --workspace --no-fail-fast

lint: ## format, clippy with warnings denied, the laws of replicated code, cargo-deny
	@$(ENSURE) --toolchain
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@$(MAKE) --no-print-directory laws
	.ci/deny

laws: ## the laws a compiler can check: tests/tests/laws.rs
	cargo test --locked --workspace --test laws

bench: servers ## the figures of docs/benchmarks.json, on the release build with production settings
	@$(ENSURE) --toolchain
	cargo build --locked --release -p concordat-cli -p concordat-tests
	cargo build --locked --release --manifest-path tests/engines/Cargo.toml --target-dir $(TARGET)/engines
	@export CONCORDAT_SERVERS="$$($(ENSURE) --dir)" CONCORDAT_TESSERA="$$($(ENSURE) tessera)" CONCORDAT_ENGINES="$(abspath $(TARGET))/engines/release/policy-engines"; \
	$(TARGET)/release/concordat-bench run --out docs/benchmarks.json

bench-check: ## the last figures against their floors (tests/bench-floors.json)
	@test -x $(TARGET)/release/concordat-bench || { echo "concordat: nothing was measured on this checkout: run 'make bench' first." >&2; exit 1; }
	@$(TARGET)/release/concordat-bench check --results docs/benchmarks.json --floors tests/bench-floors.json

FUZZ_SECONDS ?= 60

# A bounded run of the same functions is part of `make test`; this one goes on where that one stops.
fuzz: ## every decoder's fuzzer, FUZZ_SECONDS (60) each; needs nightly Rust and cargo-fuzz
	@cargo +nightly fuzz --version >/dev/null 2>&1 || { echo "concordat: fuzzing needs nightly Rust and cargo-fuzz: run 'rustup toolchain install nightly' and 'cargo install cargo-fuzz'." >&2; exit 1; }
	cargo test --locked -p concordat-protocol --features node --test fuzz write_corpus -- --ignored
	@cd protocol && for target in $$(cargo +nightly fuzz list); do \
	  echo "fuzz $$target"; cargo +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS) -max_len=262144 -verbosity=0; \
	done

servers: ## CometBFT and nats-server at their pinned versions, built once
	@$(ENSURE)

web: ## the verifier as one HTML page, protocol/web/dist/verify.html (needs the target wasm32-unknown-unknown)
	@$(ENSURE) --toolchain
	@protocol/web/build.sh

clean: ## remove what cargo built; the cached servers stay
	cargo clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' Makefile | while read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done
