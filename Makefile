# The commands of the project. `make run` and `make test` install what is missing and then do their job.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# A toolchain that tools/setup has just installed is not on the PATH of the shell that called make.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# What `make run` builds with: optimised, since the demo shares its processor with the load that it makes.
DEMO := target/release/loadgen

.PHONY: help run test soak lint bench doc setup

help: ## What there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## Start the demo: a real fleet that follows a real load, until Ctrl-C
	@tools/first-build $(DEMO)
	@cargo build --quiet --locked --release --package loadline --package loadgen --bins
	@exec $(DEMO) demo

test: setup ## Everything that must hold before a change goes in: formatting, and every test
	@cargo fmt --all --check
	cargo test --workspace --locked

soak: setup ## The tests at their full length: a minute of load and more, where `make test` takes seconds
	LOADLINE_SOAK=1 cargo test --workspace --locked

lint: setup ## Formatting, clippy without warnings, shell scripts, licences of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	@tools/lint-extra

bench: setup ## The benchmarks (criterion)
	cargo bench --workspace --locked

doc: setup ## The documentation of the crates, in target/doc
	RUSTDOCFLAGS='--deny warnings' cargo doc --workspace --no-deps --locked

setup:
	@tools/setup
