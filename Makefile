# Weir: one target per thing one does here. CARGO_TARGET_DIR is honoured where it is set.

SHELL := /bin/sh
.DEFAULT_GOAL := help

ifdef CARGO_TARGET_DIR
TARGET := $(abspath $(CARGO_TARGET_DIR))
else
TARGET := $(CURDIR)/target
endif
CLIENTS := $(TARGET)/clients
CONFIG ?= config/weir.toml

# Crates outside the root workspace: Wasm guests, with a target and a profile of their own.
GUESTS = filters/Cargo.toml $(wildcard tests/guests/Cargo.toml) proxy/host/benches/passing-guest/Cargo.toml \
	$(sort $(shell find examples -name Cargo.toml -not -path '*/target/*'))

.PHONY: help setup setup-test run build test bench bench-routing fmt fmt-check lint clippy check-deps clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

setup: ## install what building needs and is missing
	@tests/setup/build

setup-test: ## the same for the tests: the real clients, for Python and Node
	@tests/setup/build test
	@tests/setup/clients "$(CLIENTS)"

run: setup ## build, then serve CONFIG (config/weir.toml), live: edit it while it runs
	cargo run --release -- run --config $(CONFIG)

build: setup ## build everything of the root workspace, optimised
	cargo build --release --workspace

test: setup-test ## every test: gateway, filters, examples, real clients
	cargo build --release --workspace --bins
	cargo test --release --workspace --no-fail-fast
	set -e; for guest in $(GUESTS); do cargo test --manifest-path "$$guest"; done

bench: setup ## measure the chain against a bare proxy (bench/chain.json in the target directory) and phase calls
	cargo build --release --workspace --bins
	"$(TARGET)/release/weir-bench"
	cargo bench --workspace --bench phases

bench-routing: setup ## measure the routing methods before simulated model servers (bench/routing.json, a picture per scenario)
	cargo build --release --workspace --bins
	"$(TARGET)/release/weir-bench-routing"

fmt: ## format all Rust
	cargo fmt --all
	set -e; for guest in $(GUESTS); do cargo fmt --all --manifest-path "$$guest"; done

fmt-check: ## fail if `make fmt` would change something
	cargo fmt --all -- --check
	set -e; for guest in $(GUESTS); do cargo fmt --all --manifest-path "$$guest" -- --check; done

lint: clippy check-deps ## clippy with warnings as errors, and the dependencies

clippy: setup ## clippy alone
	cargo clippy --release --workspace --all-targets -- -D warnings
	set -e; for guest in $(GUESTS); do \
		cargo clippy --manifest-path "$$guest" --workspace --all-targets -- -D warnings; done

check-deps: ## licences, bans, sources and, where they can be had, advisories of the dependencies
	@tests/setup/deny

clean: ## remove what was built
	cargo clean
	set -e; for guest in $(GUESTS); do cargo clean --manifest-path "$$guest"; done
