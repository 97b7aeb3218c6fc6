#!/usr/bin/env bash
# Prints figures of the release build: time to start, memory when idle, latency of the probes in an outage. With the argument
# `health`: what a hundred checks cost, and what a minute of a frozen server does.
# They are for reading, not for passing: on a shared machine they vary.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

script=scripts/bench.py
[[ ${1:-} != health ]] || script=scripts/bench_health.py
mongod=$(scripts/mongod.sh)
cargo build --release --locked --bin bellwether
exec python3 "$script" "${CARGO_TARGET_DIR:-target}/release/bellwether" "$mongod"
