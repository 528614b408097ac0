# The commands of the project. `make run` and `make test` install what is missing and then do their job.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# A toolchain that tools/setup has just installed is not on the PATH of the shell that called make.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# What `make run` builds with: optimised, since the demo shares its processor with the load that it makes.
DEMO := target/release/loadgen

# How many tests run at once: most of them wait, for a broker, a fleet or the end of a pane.
TEST_THREADS = $(shell expr 3 \* $$(nproc 2>/dev/null || sysctl -n hw.ncpu))

# What `make fuzz` fuzzes, with how many inputs of at most how many bytes.
T := policy
RUNS := 1000000
LEN := 512

.PHONY: help run test soak lint bench doc fuzz known-log setup setup-kafka setup-tests setup-servers

help: ## What there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: known-log $(if $(LOG),setup-kafka,setup) ## Start the demo: a real fleet that follows a real load, until Ctrl-C; with LOG=kafka on a Kafka broker
	@tools/first-build $(DEMO)
	@cargo build --quiet --locked --release --package loadline --package loadgen --bins
	@exec $(if $(LOG),tools/demo-on $(LOG)) $(DEMO) demo

test: setup-servers ## Everything that must hold before a change goes in: formatting, and every test
	@cargo fmt --all --check
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$(TEST_THREADS)} cargo test --workspace --locked
	cargo run --quiet --locked --profile simulate --package loadgen --no-default-features -- simulate --seeds 1000 --all-met
	@tools/mutations --check

soak: setup-servers ## The tests at their full length: minutes of load, hundreds of kills and power failures
	LOADLINE_SOAK=1 cargo test --workspace --locked
	cargo run --quiet --locked --profile simulate --package loadgen --no-default-features -- simulate --seeds 50000
	tools/mutations
	MUTATIONS=1000000 SEED=7 cargo test --locked --profile simulate --no-default-features --test fuzz_corpora
	cargo bench --locked --package loadline --bench program

lint: setup ## Formatting, clippy without warnings, shell scripts, licences of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	@tools/lint-extra

bench: known-log setup-tests ## The benchmarks (criterion; the page in a browser); with LOG=kafka those of the pipeline on a Kafka broker
ifeq ($(LOG),kafka)
	@cargo build --quiet --locked --release --package loadline --package loadgen --bins
	@target/release/loadgen bench kafka
else
	cargo bench --workspace --locked
endif

doc: setup ## The documentation of the crates, in target/doc
	RUSTDOCFLAGS='--deny warnings' cargo doc --workspace --no-deps --locked

fuzz: ## Fuzz a parser with a nightly compiler and cargo-fuzz: make fuzz T=policy RUNS=10000000
	@mkdir -p fuzz/found/$(T)
	cd fuzz && cargo +nightly fuzz run --sanitizer none $(T) found/$(T) corpus/$(T) regressions -- \
		-runs=$(RUNS) -max_len=$(LEN) -timeout=10 -rss_limit_mb=1024 -print_final_stats=1

known-log:
	@[[ -z "$(LOG)" || "$(LOG)" == kafka ]] || { echo "make: LOG=$(LOG) is not known: write LOG=kafka, or leave it out for the log in the data directory" >&2; exit 2; }

setup:
	@tools/setup

setup-kafka:
	@tools/setup --kafka

setup-tests:
	@tools/setup --tests

# Before the first test waits for one.
setup-servers: setup-tests
	@for what in kafka registry python; do tests/env/$$what.sh install >/dev/null; done
